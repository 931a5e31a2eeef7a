"""COCO JSON: legal, and then perfect detections have AP 1, or one line."""

import json
import math
import re

import numpy as np

from localmim_jax.detection.coco import CocoSource
from localmim_jax.detection.coco_ap import average_precision
from localmim_jax.detection.coco_json import parse, put_in_order
from localmim_jax.detection.coco_masks import encoded, mask_area
from tests.fuzz.mutate import changed, damaged
from tests.fuzz.rounds import fuzz, result_or_one_line
from tests.test_coco_json import pristine

PRISTINE = pristine()


def is_legal(dataset):
    """The oracle. What an annotation says of its id, area and mask does not make a file illegal."""

    def whole(entry, key, low=-(2**63) + 1):
        value = entry[key]
        if type(value) is str and re.fullmatch("-?[0-9]{1,20}", value):
            value = int(value)
        assert type(value) in (int, float)
        assert value == math.floor(value)
        assert low <= int(value) < 2**63
        return int(value)

    def text(value):
        assert isinstance(value, str)
        assert value
        assert "\0" not in value

    try:
        images, categories = ([whole(entry, "id") for entry in dataset[key]] for key in ("images", "categories"))
        assert len(set(images)) == len(images)
        assert len(set(categories)) == len(categories) > 0
        for image in dataset["images"]:
            text(image["file_name"])
            assert whole(image, "height", 1) * whole(image, "width", 1) <= 89_478_485
        for category in dataset["categories"]:
            assert isinstance(category["name"], str)
            assert category["name"]
        for entry in dataset["annotations"]:
            assert whole(entry, "image_id") in images
            assert whole(entry, "category_id") in categories
            assert isinstance(entry["bbox"], list)
            assert [type(value) in (int, float) or float(value) * 0 is not None for value in entry["bbox"]] == [
                True
            ] * 4
            assert not any(isinstance(value, bool) for value in entry["bbox"])
            crowd = entry.get("iscrowd")
            assert crowd is None or crowd is True or crowd is False or whole(entry, "iscrowd", 0) <= 1
        assert all(isinstance(dataset[key], list) for key in ("images", "annotations", "categories"))
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return False
    return True


def require_ap_1(dataset):
    """Of perfect detections of what is evaluated, NaN where nothing is."""
    images = [image["id"] for image in dataset["images"]]
    if not images:  # no source has none
        return
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset["images"]}
    objects = [entry for entry in dataset["annotations"] if not entry["iscrowd"]]
    found = [{key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for entry in objects]
    boxes = average_precision(dataset, found, "bbox", images)["AP"]
    assert math.isnan(boxes) if not objects else np.isclose(boxes, 1)
    with_mask = [entry for entry in objects if mask_area(entry["segmentation"], *sizes[entry["image_id"]])]
    found = [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")}
        | {"score": 0.5, "segmentation": encoded(entry["segmentation"], *sizes[entry["image_id"]])}
        for entry in with_mask
    ]
    masks = average_precision(dataset, found, "segm", images)["AP"]
    assert math.isnan(masks) if not with_mask else np.isclose(masks, 1)


@fuzz(25, dataset=changed(PRISTINE))
def test_a_changed_file_is_legal_or_one_line(folder, dataset):
    ordered = result_or_one_line(lambda: put_in_order(dataset, "f"))
    assert (ordered is not None) == is_legal(dataset)
    if ordered is not None:
        kept = ordered.dataset["annotations"]
        assert len(kept) + sum(ordered.left_out.values()) == len(dataset["annotations"])
        assert [entry["id"] for entry in kept] == list(range(1, len(kept) + 1))
        require_ap_1(ordered.dataset)


@fuzz(15, dataset=changed(PRISTINE, 2))
def test_a_split_opens_and_has_every_object_or_is_one_line(folder, dataset):
    (folder / "val").mkdir(exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(dataset))
    source = result_or_one_line(lambda: CocoSource(str(folder), "val"))
    if source is not None:
        assert source.missing()
        objects = [source.objects(index) for index in range(len(source))]
        assert all(np.isfinite(each.boxes).all() and (each.boxes[:, 2:] > each.boxes[:, :2]).all() for each in objects)
        require_ap_1(source.dataset())


@fuzz(40, content=damaged(json.dumps(PRISTINE).encode()))
def test_damaged_text_is_legal_or_one_line(folder, content):
    ordered = result_or_one_line(lambda: put_in_order(parse(content, "f"), "f"))
    if ordered is not None:
        require_ap_1(ordered.dataset)
