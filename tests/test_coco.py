import json
import logging as std_logging
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.decode import DecodeError, decode
from localmim_jax.detection import coco
from localmim_jax.detection.coco import CocoSource
from localmim_jax.detection.sources import FakeDetection, open_detection, require_known_classes
from localmim_jax.errors import DataError

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def annotation(number, image, category=7, box=(10, 10, 20, 20), **changes):
    fields = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": 400, "iscrowd": 0}
    return fields | {"segmentation": SQUARE} | changes


def write(root, dataset=None, split="val"):
    """A dataset of four 40 x 60 images; the fourth is missing on disk."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir()
    images = [{"id": 10 * i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (3, 1, 2, 4)]
    for i in (1, 2, 3):
        Image.fromarray(np.full((40, 60, 3), 50 * i, np.uint8)).save(root / split / f"{i}.png")
    run_lengths = {"size": [40, 60], "counts": [0, 2400]}
    annotations = [
        annotation(1, 10),
        annotation(2, 10, category=90, segmentation=run_lengths),
        annotation(3, 10, iscrowd=1, segmentation=run_lengths),
        annotation(4, 20, box=(10, 10, 0, 20)),
        annotation(5, 20, box=(70, 10, 20, 20)),
        annotation(6, 20, segmentation=[]),
        annotation(7, 20, segmentation={"size": [9, 9], "counts": [81]}),
        annotation(8, 40),
    ]
    categories = [{"id": 90, "name": "last"}, {"id": 7, "name": "first"}, {"id": 13, "name": "absent"}]
    whole = {"images": images, "annotations": annotations, "categories": categories} | (dataset or {})
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(whole))
    return root


def test_categories_are_numbered_by_id_and_objects_belong_to_their_images(tmp_path):
    source = CocoSource(str(write(tmp_path)), "val")
    assert (source.category_ids, source.class_names) == ((7, 13, 90), ("first", "absent", "last"))
    assert [source.image_id(i) for i in range(len(source))] == [30, 10, 20, 40]
    objects = source.objects(1)
    np.testing.assert_array_equal(objects.boxes, [[10, 10, 30, 30]] * 2)
    np.testing.assert_array_equal(objects.labels, [0, 2])
    assert objects.segmentations[0] == SQUARE
    assert source.max_objects == 2
    assert source.size_of(0) == (40, 60)
    assert source.objects(0).boxes.shape == (0, 4)
    assert Image.open(source.name_of(0)).size == (60, 40)


def test_what_cannot_be_learned_from_is_left_out_and_counted(tmp_path, caplog):
    with caplog.at_level(std_logging.INFO, logger="absl"):
        source = CocoSource(str(write(tmp_path)), "val", skip_empty=True)
    assert [source.image_id(i) for i in range(len(source))] == [10, 40]
    text = caplog.text
    for part in ("1 crowds", "2 without area", "1 without a mask", "1 with a mask of another size"):
        assert part in text
    assert "4 images, 3 objects of 3 classes" in text
    assert "2 images without a usable object are left out" in text


def test_an_image_that_is_missing_is_named_when_it_is_read(tmp_path):
    source = CocoSource(str(write(tmp_path)), "val")
    with pytest.raises(DecodeError, match="No such file"):
        source.read(3)
    assert source.name_of(3).endswith("val/4.png")


def test_names_in_the_other_form_of_unicode_and_what_is_no_file(tmp_path):
    one, other = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    images = [{"id": i, "file_name": name, "height": 40, "width": 60} for i, name in enumerate((one, "2.png", "3.png"))]
    root = write(tmp_path, {"images": images, "annotations": []})
    (root / "val" / "1.png").rename(root / "val" / other)
    for name in ("2.png", "3.png"):
        (root / "val" / name).unlink()
    os.mkfifo(root / "val" / "2.png")
    os.symlink("3.png", root / "val" / "3.png")
    source = CocoSource(str(root), "val")
    assert decode(source.read(0), 3).size == (60, 40)
    assert [name[-5:] for name in source.missing()] == ["2.png", "3.png"]
    assert "2.png (a named pipe), 3.png (a link that leads in a circle)" in source.notes[0]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"categories": []}, "names no category"),
        ({"images": []}, "which is not listed"),
        ({"images": [], "annotations": []}, "has no image"),
        ({"annotations": [annotation(5, 10, category=8)]}, "annotation 5 is of category 8, which is not listed"),
        ({"annotations": [annotation(5, 99)]}, "annotation 5 is of image 99"),
        ({"annotations": [{"image_id": 10, "category_id": 7}]}, "annotation number 1 has no bbox: it is not in COCO's"),
        (
            {"annotations": [annotation(1, 10, box=("a", 1, 2, 3))]},
            r"annotation 1: bbox is \['a', 1, 2, 3\]: \[left, top",
        ),
        ({"categories": [{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]}, "gives an id to two"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, dataset, message):
    with pytest.raises(DataError, match=message) as error:
        CocoSource(str(write(tmp_path, dataset)), "val")
    assert "\n" not in str(error.value)


def test_missing_files_say_what_is_there(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"instances_train.json cannot be read .*there is instances_val.json"):
        CocoSource(str(tmp_path), "train")
    with pytest.raises(DataError, match=r"cannot be read .*it holds COCO's annotations of that split"):
        CocoSource(str(tmp_path / "nowhere"), "train")
    (tmp_path / "annotations" / "instances_train.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        CocoSource(str(tmp_path), "train")
    (tmp_path / "annotations" / "instances_train.json").write_text("{}")
    with pytest.raises(DataError, match="lacks images, annotations, categories"):
        CocoSource(str(tmp_path), "train")
    whole = (tmp_path / "annotations" / "instances_val.json").read_text()
    (tmp_path / "annotations" / "instances_train.json").write_text(whole)
    with pytest.raises(DataError, match="no folder with the images of train"):
        CocoSource(str(tmp_path), "train")
    with pytest.raises(DataError, match='reads "coco:<folder>"'):
        open_detection("photos", "train")


def test_names_with_a_folder_in_front_are_tried_from_the_root(tmp_path):
    root, images = write(tmp_path), [(10, "val/1.png"), (20, "val\\2.png"), (30, "3.png")]
    named = [{"id": number, "file_name": name, "height": 40, "width": 60} for number, name in images]
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text()) | {"images": named, "annotations": [annotation(1, 10)]}
    file.write_text(json.dumps(content))
    source = CocoSource(str(root), "val")
    assert not source.missing()
    assert [np.asarray(decode(source.read(i), 3))[0, 0, 0] for i in range(3)] == [50, 100, 150]
    file.rename(root / "annotations" / "instances_other.json")  # there is no folder other/
    assert CocoSource(str(root), "other").missing() == [str(root / "3.png")]


def test_a_file_that_changes_while_it_is_used_is_refused(tmp_path):
    source = CocoSource(str(write(tmp_path)), "val")
    assert source.dataset() == source.dataset()
    file = tmp_path / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace("absent", "new"))
    with pytest.raises(DataError, match="has changed since this run read it"):
        source.dataset()


def test_corners_for_width_and_height_are_warned_of(tmp_path, caplog):
    corners = [annotation(i, 10, box=(30, 20, 55, 39)) for i in range(3)]
    with caplog.at_level(std_logging.WARNING, logger="absl"):
        CocoSource(str(write(tmp_path, {"annotations": corners})), "val")
    assert "3 boxes reach beyond their image: a box is [left, top, width, height]" in caplog.text


def test_other_classes_are_refused_and_absent_ones_are_not(tmp_path):
    train = CocoSource(str(write(tmp_path / "a")), "val")
    fewer = [{"id": 7, "name": "first"}]
    require_known_classes(
        train, CocoSource(str(write(tmp_path / "b", {"categories": fewer, "annotations": []})), "val")
    )
    renamed = [{"id": 7, "name": "other"}]
    other = CocoSource(str(write(tmp_path / "c", {"categories": renamed, "annotations": []})), "val")
    with pytest.raises(DataError, match=r"categories that differ from those of .*: 7 \(other\)"):
        require_known_classes(train, other)


def test_the_fake_source_agrees_with_its_own_json():
    source = FakeDetection(6, 3, (32, 64), "train")
    dataset = source.dataset()
    assert source.size_of(1) == (32, 64)
    assert source.size_of(0) == (64, 32)
    counts = [len(source.objects(index).labels) for index in range(6)]
    assert counts == [0, 1, 2, 3, 4, 0]
    assert len(dataset["annotations"]) == sum(counts)
    first = dataset["annotations"][0]
    box = source.objects(1).boxes[0]
    np.testing.assert_allclose(first["bbox"], [box[0], box[1], box[2] - box[0], box[3] - box[1]], rtol=1e-5)
    assert coco._corners(first["bbox"])[2] <= 64
