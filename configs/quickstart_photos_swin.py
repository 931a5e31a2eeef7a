"""The same photographs with a small Swin: minutes on two CPU cores.

    python main.py --config=configs/quickstart_photos_swin.py --workdir=runs/quickstart_photos_swin

Published: nothing. What to look for: as in quickstart_photos.py.
2 px patches, three stages of 32, 16 and 8 tokens a side, mask units of 8 px, HOG with cells of 4, 8 and 8 px.
"""

from configs import common, quickstart_photos


def get_config():
    config = quickstart_photos.get_config()
    config.model = common.swin("swin_t")
    config.model.update({"patch_size": 2, "width": 32, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "window": 4})
    config.model.sparse_attention = ("packed",) * 3
    config.model.target.bins = 9
    config.model.dtype = "float32"
    config.model.decoder.width = (32, 64, 64)
    return config
