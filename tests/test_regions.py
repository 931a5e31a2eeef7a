import numpy as np
from PIL import Image

from localmim_jax.segmentation import regions
from localmim_jax.segmentation.check import check_examples
from localmim_jax.segmentation.numbering import IGNORED
from localmim_jax.segmentation.sources import open_masks


def test_masks_follow_tone_and_texture():
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[:, :50], picture[:, 50:100], picture[:, 100:150], picture[:, 150:] = 10, 240, (200, 60, 30), (30, 60, 200)
    mask = regions.regions(Image.fromarray(picture))
    centers = [mask[60, x] for x in (15, 75, 125, 185)]
    assert [regions.CLASSES[value - 1] for value in centers] == ["dark", "pale", "warm", "cool"]
    noise = np.random.default_rng(0).integers(0, 2, (120, 200, 1)).repeat(3, 2) * np.uint8(120)
    rough = regions.regions(Image.fromarray((100 + noise).astype(np.uint8)))
    assert regions.CLASSES[rough[60, 100] - 1] == "pale texture"


def test_a_dataset_in_ade20ks_layout_made_once(tmp_path):
    folder = regions.prepare(str(tmp_path), {"training": 16, "validation": 4})
    made = (folder / "classes.txt").stat().st_mtime_ns
    assert regions.prepare(str(tmp_path), {"training": 16, "validation": 4}) == folder
    assert (folder / "classes.txt").stat().st_mtime_ns == made
    source = open_masks(f"masks:{folder}", "training")
    check_examples(source)
    assert (len(source), source.class_names) == (16, regions.CLASSES)
    found = np.unique(np.concatenate([source[i]["mask"].ravel() for i in range(16)]))
    assert set(found.tolist()) == {*range(7), IGNORED}
    assert len({source.size_of(i) for i in range(16)}) > 10
