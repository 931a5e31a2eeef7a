"""A small Swin pre-trained on the photographs of quickstart_photos.py: minutes on two CPU cores.

    python main.py --config=configs/quickstart_photos_swin.py --workdir=runs/quickstart_photos_swin

Published: nothing. Expect: as in quickstart_photos.py.
2 px patches, three stages of 32, 16 and 8 tokens a side, mask units of 8 px, HOG with cells of 4, 8 and 8 px.
"""

from localmim_jax.configs.parts import reconstruction

from localmim_jax.configs import quickstart_photos, quickstart_swin


def get_config():
    config = quickstart_photos.get_config()
    config.model = reconstruction(quickstart_swin.encoder())
    config.model.target.bins = 9
    config.model.decoder.width = (32, 64, 64)
    return config
