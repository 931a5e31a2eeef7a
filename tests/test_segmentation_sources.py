import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.decode import DecodeError
from localmim_jax.errors import DataError
from localmim_jax.segmentation.numbering import IGNORED
from localmim_jax.segmentation.sources import FakeMasks, MaskFolder, open_masks

CLASSES = ("wall", "sky", "tree")


def write(root, count=4, split="training", size=(9, 12), classes=CLASSES):
    """A folder in ADE20K's layout; image i is gray i, and its mask counts 0, 1, 2, 3 along the rows."""
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        h, w = size[0], size[1] + i
        Image.fromarray(np.full((h, w, 3), i, np.uint8)).save(root / "images" / split / f"{i}.png")
        mask = np.broadcast_to((np.arange(h) % 4)[:, None], (h, w)).astype(np.uint8)
        Image.fromarray(mask).save(root / "annotations" / split / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root


def test_examples_have_labels_with_zero_ignored_or_not(tmp_path):
    source = MaskFolder(str(write(tmp_path)), "train")  # stands for training
    assert (len(source), source.class_names, source.num_classes) == (4, CLASSES, 3)
    assert [source.size_of(i) for i in range(4)] == [(9, 12), (9, 13), (9, 14), (9, 15)]
    labels = source[2]["mask"]
    np.testing.assert_array_equal(labels[:, 0], [IGNORED, 0, 1, 2, IGNORED, 0, 1, 2, IGNORED])
    np.testing.assert_array_equal(source.stored(labels)[:, 0], np.arange(9) % 4)
    whole = MaskFolder(str(write(tmp_path, classes=("floor", *CLASSES))), "training", zero_ignored=False)
    np.testing.assert_array_equal(whole[2]["mask"][:, 0], np.arange(9) % 4)
    np.testing.assert_array_equal(whole.stored(whole[2]["mask"])[:, 0], np.arange(9) % 4)


@pytest.mark.parametrize("zero_ignored", [True, False])
def test_255_is_no_class_either_way(tmp_path, zero_ignored):
    source = MaskFolder(str(write(tmp_path, 1)), "training", zero_ignored)
    Image.fromarray(np.full((9, 12), 255, np.uint8)).save(tmp_path / "annotations/training/0.png")
    assert (source[0]["mask"] == IGNORED).all()


def test_a_mask_that_cannot_be_read_is_named_as_such(tmp_path):
    source = MaskFolder(str(write(tmp_path, 1)), "training")
    path = tmp_path / "annotations/training/0.png"
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(path, "JPEG")
    with pytest.raises(DecodeError, match=r"its mask: .*store it as PNG"):
        source[0]
    path.write_bytes(b"")
    with pytest.raises(DecodeError, match="its mask: the file is empty"):
        source[0]


def test_ade20ks_own_list_of_classes(tmp_path):
    write(tmp_path)
    (tmp_path / "classes.txt").unlink()
    rows = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1\t10\t1\twall", "2\t0.1\t9\t1\tbuilding, edifice", "3\t0\t1\t1\tsky"]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    assert MaskFolder(str(tmp_path), "training").class_names == ("wall", "building, edifice", "sky")


def test_an_empty_line_among_the_classes_is_refused_and_a_byte_order_mark_is_none(tmp_path):
    """Before, the classes after an empty line were numbered one lower than in the masks."""
    write(tmp_path)
    (tmp_path / "classes.txt").write_bytes("\ufeffwall\r\n sky\r\ntree\r\n\r\n".encode())
    assert MaskFolder(str(tmp_path), "training").class_names == CLASSES
    (tmp_path / "classes.txt").write_text("wall\n\ntree\n")
    with pytest.raises(DataError, match="has an empty line 2: classes are numbered by line"):
        MaskFolder(str(tmp_path), "training")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder: give the one that holds"):
        open_masks(f"masks:{tmp_path / 'nowhere'}", "training")
    write(tmp_path)
    with pytest.raises(DataError, match=r"no folder .*images/validation; there is training"):
        MaskFolder(str(tmp_path), "validation")
    (tmp_path / "annotations/training/2.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 4 images .* have no mask .*: 2.png"):
        MaskFolder(str(tmp_path), "training")
    for kind in ("images", "annotations"):
        (tmp_path / kind / "validation").mkdir()
    with pytest.raises(DataError, match="images/validation holds no images"):
        MaskFolder(str(tmp_path), "validation")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no list of classes: write classes\.txt"):
        MaskFolder(str(tmp_path), "training")
    with pytest.raises(DataError, match="segmentation reads"):
        open_masks("photos", "training")


def test_junk_links_cases_and_both_forms_of_unicode(tmp_path):
    write(tmp_path, 2)
    images, masks = (tmp_path / kind / "training" for kind in ("images", "annotations"))
    (images / "._0.png").write_bytes(b"junk")
    (images / ".ipynb_checkpoints").mkdir()
    (images / ".ipynb_checkpoints" / "0.png").write_bytes(b"junk")
    (images / "0.txt").write_text("notes")
    (images / "0.png").rename(images / "0.PNG")
    one, other = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    (images / "1.png").rename(images / one)
    (masks / "1.png").rename(masks / other)
    (tmp_path / "more").mkdir()
    Image.new("RGB", (12, 9)).save(tmp_path / "more" / "5.tif")
    Image.new("L", (12, 9), 1).save(tmp_path / "5.PNG", "PNG")
    os.symlink(tmp_path / "more", images / "linked")
    (masks / "linked").mkdir()
    (tmp_path / "5.PNG").rename(masks / "linked" / "5.PNG")
    os.mkfifo(images / "6.png")
    source = MaskFolder(str(tmp_path), "Train")
    assert [source.key_of(i) for i in range(len(source))] == ["0.PNG", "linked/5.tif", one]
    assert [source[i]["mask"].shape for i in range(3)] == [(9, 12), (9, 12), (9, 13)]
    assert len(source.notes) == 2
    assert "not read: 1 .txt" in source.notes[0]
    assert "6.png (a named pipe)" in source.notes[1]


def test_fake_masks_lie_stand_and_have_every_class():
    source = FakeMasks(12, 3, (32, 48), "train")
    assert {source.size_of(i) for i in range(12)} == {(32, 64), (42, 48)}
    for i in range(12):
        assert source[i]["image"].shape == (*source.size_of(i), 3)
        assert source[i]["mask"].shape == source.size_of(i)
    assert {int(v) for i in range(12) for v in np.unique(source[i]["mask"])} == {0, 1, 2, IGNORED}
