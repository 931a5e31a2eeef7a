"""What is wrong with masks, before the first step."""

import logging as std_logging

import numpy as np
import pytest
from PIL import Image

from localmim_jax.build import build_task
from localmim_jax.configs import parts
from localmim_jax.data.index_mask import decode_indices
from localmim_jax.errors import DataError
from localmim_jax.segmentation import source as segmentation_source
from localmim_jax.segmentation.check import check_evaluated, check_examples
from localmim_jax.segmentation.sources import MaskFolder, open_masks
from tests.shrink import shrink
from tests.test_segmentation_sources import CLASSES, write


def fill(root, *values, size=(9, 12)):
    """A folder whose i-th mask holds the i-th tuple of values."""
    write(root, len(values), classes=CLASSES)
    for i, row in enumerate(values):
        mask = np.resize(np.array(row, np.uint8), (size[0], size[1] + i))
        Image.fromarray(mask).save(root / "annotations/training" / f"{i}.png")
    return str(root)


def test_pairs_that_do_not_fit_are_named_before_the_first_step(tmp_path):
    source = MaskFolder(str(write(tmp_path)), "training")
    check_examples(source)
    path = tmp_path / "annotations/training/3.png"
    Image.fromarray(np.full((9, 15), 4, np.uint8)).save(path)
    with pytest.raises(
        DataError, match=r"images/training/3.png has the value 4, and 3 classes .* from 1 to 3, 0 being"
    ):
        check_examples(source)
    Image.fromarray(np.full((12, 9), 1, np.uint8)).save(path)
    with pytest.raises(DataError, match=r"3.png: the image is 9 x 15 pixels \(h x w\) and its mask 12 x 9"):
        check_examples(source)


def test_a_mask_that_an_evaluation_would_refuse_is_named_before_training(tmp_path):
    source = MaskFolder(str(write(tmp_path)), "training")
    check_evaluated(source)
    path = tmp_path / "annotations/training/3.png"
    Image.fromarray(np.full((9, 15), 4, np.uint8)).save(path)
    with pytest.raises(DataError, match="has the value 4, and 3 classes"):
        check_evaluated(source)
    colors = np.random.default_rng(0).integers(0, 256, (9, 15, 3), np.uint8)
    Image.fromarray(colors).save(path)
    with pytest.raises(DataError, match="its mask: "):
        check_evaluated(source)


def test_a_task_looks_at_every_mask_once(tmp_path, monkeypatch, caplog):
    """Before, up to 256 masks of the split that is evaluated were decoded twice."""
    root = write(tmp_path / "a")
    write(root, 6, "validation")
    for i in range(6):
        Image.fromarray(np.full((9, 12 + i), 2, np.uint8)).save(root / "annotations/validation" / f"{i}.png")
    decoded = []
    monkeypatch.setattr(
        segmentation_source, "decode_indices", lambda mask: decoded.append(mask) or decode_indices(mask)
    )
    config = shrink(parts.segment(parts.vit("vit_b")))
    config.data.update({"name": f"masks:{root}", "split": "training"})
    config.schedule.peak_lr = 1e-3
    build_task(config, "")
    assert len(decoded) == 4 + 6
    assert "[validation]: the 6 checked masks lack 2 of 3 classes: wall, tree" in caplog.text


def test_masks_of_an_evaluated_split_without_a_labeled_pixel_stop_the_run(tmp_path):
    with pytest.raises(DataError, match=r"have no labeled pixel \(values: 0\); .*zero_ignored=false"):
        check_evaluated(MaskFolder(fill(tmp_path / "a", (0,), (0,)), "training"))
    with pytest.raises(DataError, match=r"the 2 checked masks hold 0 and 255 only"):
        check_evaluated(MaskFolder(fill(tmp_path / "b", (0, 255), (255,)), "training"))


def test_masks_without_a_labeled_pixel_stop_the_run(tmp_path):
    """Before, the loss was 0.0000 for the whole run."""
    nothing = fill(tmp_path / "nothing", (0,), (0,))
    with pytest.raises(DataError, match=r"have no labeled pixel \(values: 0\); .*zero_ignored=false"):
        check_examples(MaskFolder(nothing, "training"))
    check_examples(MaskFolder(nothing, "training", zero_ignored=False))
    with pytest.raises(DataError, match=r"values: 255\)"):
        check_examples(MaskFolder(fill(tmp_path / "white", (255,)), "training"))


@pytest.mark.parametrize("zero_ignored", [True, False])
def test_0_and_255_are_explained_and_can_be_mapped(tmp_path, zero_ignored):
    """Before, mIoU was 1 of the one class that was left."""
    root = fill(tmp_path, (0, 255), (0,), (255, 0, 0))
    with pytest.raises(DataError, match=r"hold 0 and 255 only; .*mask_values=0,255") as error:
        check_examples(MaskFolder(root, "training", zero_ignored))
    assert "\n" not in str(error.value)
    (tmp_path / "classes.txt").write_text("wall\nhole\n")
    source = open_masks(f"masks:{root}", "training", zero_ignored=zero_ignored, mask_values=(0, 255))
    check_examples(source)
    labels = source[2]["mask"]
    assert labels[0, :4].tolist() == [1, 0, 0, 1]
    np.testing.assert_array_equal(source.stored(labels)[0, :4], [255, 0, 0, 255])


def test_classes_that_never_occur_are_named(tmp_path, caplog):
    root = fill(tmp_path, (0, 1), (1, 3), (0,))
    with caplog.at_level(std_logging.INFO, logger="absl"):
        check_examples(MaskFolder(root, "training"))
    assert "the 3 checked masks lack 1 of 3 classes: sky" in caplog.text
    assert "1 have no labeled pixel" in caplog.text
    assert "WARNING" in caplog.text, "every mask was looked at"
    caplog.clear()
    with caplog.at_level(std_logging.INFO, logger="absl"):
        check_examples(MaskFolder(fill(tmp_path, (2,), (2,), (2,)), "training"), count=2)
    assert "lack 2 of 3 classes: wall, tree; a model that always predicts the one that does" in caplog.text
    caplog.clear()
    with caplog.at_level(std_logging.INFO, logger="absl"):
        check_examples(MaskFolder(fill(tmp_path, (1, 2, 3), (2,)), "training"))
    assert not caplog.records


def test_a_split_of_unreadable_masks_is_refused_and_one_of_many_is_not(tmp_path):
    root = fill(tmp_path, (1, 2, 3), (1, 2, 3))
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 9, (9, 12, 3), np.uint8))
    colors.save(tmp_path / "annotations/training/0.png")
    check_examples(MaskFolder(root, "training"))
    colors.save(tmp_path / "annotations/training/1.png")
    with pytest.raises(
        DataError, match=r"none of the 2 checked pairs .* the first: .*0.png: its mask: .* colors \(RGB\)"
    ):
        check_examples(MaskFolder(root, "training"))
