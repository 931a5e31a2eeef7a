"""What an evaluation would stumble over is said before the first step."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from localmim_jax.data import check
from localmim_jax.data.check import check_evaluated
from localmim_jax.data.folder import FolderSource
from localmim_jax.detection import sources as detection
from localmim_jax.detection.coco import CocoSource
from localmim_jax.errors import DataError
from localmim_jax.segmentation import check as segmentation
from localmim_jax.segmentation.sources import MaskFolder
from tests.test_pipeline import Numbered

PHOTO = Image.fromarray(photographs.astronaut()).resize((96, 64))


def encoded(format: str, **options) -> bytes:
    out = io.BytesIO()
    PHOTO.save(out, format, **options)
    return out.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


JPEG, PNG = encoded("JPEG"), encoded("PNG")
BAD = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "header only": JPEG[:40],
    "cut jpeg": JPEG[: len(JPEG) // 2],
    "cut png": PNG[: len(PNG) // 2],
}


def folder(root, last: bytes = JPEG, count: int = 6):
    for i in range(count):
        path = root / "val" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(last if i == count - 1 else JPEG)
    return FolderSource(str(root), "val")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_validation_image_is_named(tmp_path, kind):
    with pytest.raises(DataError, match=r"1 of the 6 checked images cannot be evaluated: .*val/b/5\.jpg: ") as error:
        check_evaluated(folder(tmp_path, BAD[kind]))
    assert "\n" not in str(error.value)


def test_good_images_pass_also_with_bytes_behind_their_end(tmp_path):
    check_evaluated(folder(tmp_path / "a"))
    check_evaluated(folder(tmp_path / "b", JPEG + bytes(1000)))


def test_a_label_out_of_range_is_named():
    with pytest.raises(DataError, match=r"numbered/2\.jpg: label 10 of 10 classes, 0 to 9"):
        check_evaluated(Numbered(20, labels={2: 10}))


def test_many_are_counted_and_a_few_named():
    with pytest.raises(DataError, match=r"7 of the 20 checked images .*numbered/0\.jpg: .*; and 4 more; an eval"):
        check_evaluated(Numbered(20, bad=range(7)))


def test_of_a_large_split_the_same_sample_is_looked_at(monkeypatch, caplog):
    monkeypatch.setattr(check, "ALL_UP_TO", 100)
    monkeypatch.setattr(check, "SAMPLED", 11)
    looked = []
    check_evaluated(Numbered(101), looked.append)
    assert sorted(looked) == list(range(0, 101, 10))


def coco(root, image: bytes, height: int = 64, width: int = 96) -> CocoSource:
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    (root / "val" / "1.jpg").write_bytes(image)
    polygon = [5, 5, 40, 5, 40, 40, 5, 40]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": height, "width": width}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 35, 35], "segmentation": [polygon]}],
        "categories": [{"id": 1, "name": "face"}],
    }
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return CocoSource(str(root), "val")


def test_sizes_are_compared_with_the_annotations(tmp_path):
    detection.check_evaluated(coco(tmp_path / "a", JPEG))
    detection.check_evaluated(coco(tmp_path / "b", turned(), 96, 64))
    for name, image, size, text in (
        (
            "c",
            turned(),
            (64, 96),
            r"96 x 64 pixels \(h x w\), because its EXIF data turn it, and the annotations say 64 x",
        ),
        ("d", JPEG, (64, 95), r"64 x 96 pixels \(h x w\) and the annotations say 64 x 95"),
        ("e", BAD["cut jpeg"], (64, 96), r"1\.jpg: "),
    ):
        with pytest.raises(DataError, match=text):
            detection.check_evaluated(coco(tmp_path / name, image, *size))


def masks(root, image: bytes, mask: np.ndarray | bytes) -> MaskFolder:
    for kind in ("images", "annotations"):
        (root / kind / "val").mkdir(parents=True)
    (root / "classes.txt").write_text("sky\nface\n")
    (root / "images" / "val" / "1.jpg").write_bytes(image)
    path = root / "annotations" / "val" / "1.png"
    path.write_bytes(mask) if isinstance(mask, bytes) else Image.fromarray(mask).save(path)
    return MaskFolder(str(root), "val")


def test_masks_are_read_and_have_their_images_size(tmp_path):
    good = np.ones((64, 96), np.uint8)
    segmentation.check_evaluated(masks(tmp_path / "a", JPEG, good))
    for name, image, mask, text in (
        ("b", JPEG, good.T, "its mask 96 x 64"),
        ("c", turned(), good, "the image is 96 x 64"),
        ("d", JPEG, PNG[:60], r"1\.jpg: "),
        ("e", BAD["cut jpeg"], good, r"1\.jpg: "),
    ):
        with pytest.raises(DataError, match=text):
            segmentation.check_evaluated(masks(tmp_path / name, image, mask))
