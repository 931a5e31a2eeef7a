"""Any legal COCO file: perfect detections have AP 1. Any other: one line."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from localmim_jax.detection.coco_ap import average_precision
from localmim_jax.detection.coco_json import categories_of, parse, put_in_order
from localmim_jax.errors import DataError

FILE = "instances_val.json"
SIZE = (60, 80)


def rectangle(left, top, width, height):
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def pristine():
    """Three images, three classes, seven objects with polygons or run lengths."""
    boxes = [(5, 5, 20, 10), (30, 8, 12, 30), (50, 20, 25, 25), (2, 30, 16, 16), (10, 10, 40, 8), (60, 2, 8, 8)]
    annotations = []
    for number, box in enumerate([*boxes, (20, 20, 30, 30)]):
        fields = {"id": number + 1, "image_id": 10 * (number % 3), "category_id": (5, 1, 9)[number % 2]}
        fields |= {"bbox": list(box), "area": box[2] * box[3], "iscrowd": 0, "segmentation": rectangle(*box)}
        if number == 2:
            fields["segmentation"] = {"size": list(SIZE), "counts": lengths(box)}
        annotations.append(fields)
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 60, "width": 80} for number in (20, 0, 10)]
    categories = [{"id": number, "name": f"class {number}"} for number in (5, 1, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}


def lengths(box):
    rle = coco_mask.merge(coco_mask.frPyObjects(rectangle(*box), *SIZE))
    mask = np.concatenate([[0], coco_mask.decode(rle).ravel(order="F"), [2]])
    return np.diff([0, *np.flatnonzero(np.diff(mask))]).tolist()


def perfect(dataset):
    """Detections that are the objects of an untouched file, with their masks."""
    results = []
    for entry in dataset["annotations"]:
        mask = entry["segmentation"]
        mask = coco_mask.frPyObjects(mask, *SIZE)
        mask = coco_mask.merge(mask) if isinstance(mask, list) else mask
        found = {key: entry[key] for key in ("image_id", "category_id", "bbox")}
        results.append(found | {"score": 0.9, "segmentation": {**mask, "counts": mask["counts"].decode()}})
    return results


def ap(dataset, results):
    ordered = put_in_order(json.loads(json.dumps(dataset)), FILE)
    images = [image["id"] for image in ordered.dataset["images"]]
    return [average_precision(ordered.dataset, results, kind, images)["AP"] for kind in ("bbox", "segm")]


def with_each(**changes):
    def change(dataset):
        for entry in dataset["annotations"]:
            entry.update(changes)

    return change


def without(key):
    def change(dataset):
        for entry in dataset["annotations"]:
            del entry[key]

    return change


def from_zero(dataset):
    for number, entry in enumerate(dataset["annotations"]):
        entry["id"] = number


def as_text(dataset):
    for entry in dataset["annotations"]:
        entry.update({key: str(entry[key]) for key in ("id", "image_id", "category_id")})
    dataset["images"][1]["id"] = "0"
    dataset["categories"][0]["id"] = 5.0


def thin_polygons(dataset):
    for entry in dataset["annotations"][:2]:
        entry["segmentation"] = [[1, 2, 3, 4], [1, 1, 2, 2, 3], *entry["segmentation"], [5, 5]]


def crowds(dataset):
    fields = {"id": 1, "image_id": 0, "category_id": 5, "bbox": [0, 0, 80, 60], "iscrowd": True}
    dataset["annotations"].append(fields | {"segmentation": {"size": [60, 80], "counts": [0, 4800]}})


LEGAL = {
    "untouched": lambda dataset: None,
    "ids from 0": from_zero,
    "one id for all": with_each(id=7),
    "no ids": without("id"),
    "ids that are no numbers": with_each(id={"a": 1}),
    "no iscrowd": without("iscrowd"),
    "iscrowd null": with_each(iscrowd=None),
    "iscrowd as text": with_each(iscrowd="0"),
    "no area": without("area"),
    "area null": with_each(area=None),
    "area 0": with_each(area=0),
    "area not a number": with_each(area=float("nan")),
    "area beyond what is evaluated": with_each(area=1e11),
    "text and floats for ids": as_text,
    "polygons of too few points": thin_polygons,
    "a crowd over everything": crowds,
    "more fields": with_each(score=0.5, ignore=1, keypoints=[], caption="a"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_perfect_detections_of_a_legal_file_have_ap_1(name):
    """With pycocotools alone: 0.782 for ids from 0, 0.03 to 0.25 for repeated ids, an error for null areas."""
    dataset = pristine()
    results = perfect(dataset)
    LEGAL[name](dataset)
    assert ap(dataset, results) == [pytest.approx(1.0, abs=1e-9)] * 2


@pytest.mark.parametrize("mask", [None, [], [[1, 2, 3, 4]], {"size": [1, 1], "counts": [1]}, [[5, 5, 6, 6, 7, 7]]])
def test_an_object_without_a_usable_mask_counts_for_boxes_only(mask):
    dataset = pristine()
    results = perfect(dataset)
    dataset["annotations"][0]["segmentation"] = mask
    assert ap(dataset, results) == [pytest.approx(1.0)] * 2
    box, masks = ap(dataset, results[1:])
    assert box < 1, "it is missed as a box"
    assert masks == pytest.approx(1.0), "and neither right nor wrong as a mask"


@pytest.mark.parametrize("box", [[1, 1, 0, 5], [1, 1, 5, -2], [90, 1, 5, 5], [float("nan"), 1, 5, 5], [1e300, 1, 5, 5]])
def test_an_object_without_a_box_is_left_out_of_both(box):
    dataset = pristine()
    results = perfect(dataset)
    dataset["annotations"].append({"image_id": 0, "category_id": 9, "bbox": box, "segmentation": [[1, 2, 3, 4, 9, 9]]})
    assert ap(dataset, results) == [pytest.approx(1.0)] * 2
    assert sum(put_in_order(dataset, FILE).left_out.values()) == 1


def test_wrong_detections_still_cost():
    dataset = pristine()
    results = perfect(dataset)
    moved = [entry | {"category_id": 9} if i == 0 else entry for i, entry in enumerate(results)]
    assert max(ap(dataset, moved)) < 1


ILLEGAL = [
    ("images", 0, "id", "abc", r"image 'abc': id is 'abc': a whole number is needed"),
    ("images", 0, "id", 1.5, "a whole number"),
    ("images", 0, "id", True, "a whole number"),
    ("images", 0, "id", None, "a whole number"),
    ("images", 0, "id", 2**70, "a whole number"),
    ("images", 0, "id", "10", r"gives an id to two images \(10\)"),
    ("images", 0, "height", 0, "is of 0 x 80 pixels"),
    ("images", 0, "height", float("inf"), "height is inf"),
    ("images", 0, "width", 10**9, "is of 60 x 1000000000 pixels"),
    ("images", 0, "file_name", None, "file_name is None: the name of a file"),
    ("images", 0, "file_name", "a\0b", "the name of a file"),
    ("annotations", 2, "image_id", "x", "annotation 3: image_id is 'x'"),
    ("annotations", 2, "image_id", 99, "annotation 3 is of image 99, which is not listed"),
    ("annotations", 2, "category_id", [1], r"category_id is \[1\]"),
    ("annotations", 2, "bbox", [1, 2, 3], r"bbox is \[1, 2, 3\]: \[left, top, width, height\]"),
    ("annotations", 2, "bbox", None, "bbox is None"),
    ("annotations", 2, "bbox", [1, 2, None, 3], "bbox is"),
    ("annotations", 2, "iscrowd", 2, "iscrowd is 2: 0 or 1"),
    ("annotations", 2, "iscrowd", "no", "iscrowd is 'no'"),
    ("categories", 0, "name", None, "category 5: name is None: text"),
    ("categories", 0, "id", "1", "gives an id to two categories"),
]


@pytest.mark.parametrize(("part", "place", "key", "value", "message"), ILLEGAL)
def test_an_illegal_value_is_named_in_one_line(part, place, key, value, message):
    dataset = copy.deepcopy(pristine())
    dataset[part][place][key] = value
    with pytest.raises(DataError, match=message) as error:
        put_in_order(dataset, FILE)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{", "[1]x", "\xff", "1" * 5000, ""])
def test_an_absurd_file_is_refused_in_one_line(content):
    with pytest.raises(DataError) as error:
        put_in_order(parse(content.encode("latin-1"), FILE), FILE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dataset", [[], None, 3, "a", {}, {"images": {}, "annotations": [], "categories": []}])
def test_another_structure_is_refused_in_one_line(dataset):
    with pytest.raises(DataError, match=r"lacks|has a list there"):
        put_in_order(dataset, FILE)
    with pytest.raises(DataError, match=r"lacks|names no category"):
        categories_of(dataset, FILE)
    for part in ("images", "annotations", "categories"):
        with pytest.raises(DataError, match=rf"{part}\[0\] is .*has fields there"):
            put_in_order(pristine() | {part: [7]}, FILE)
