import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from localmim_jax.data.pipeline import eval_batches
from localmim_jax.detection import roi, shapes
from localmim_jax.detection.augment import DetectionEvalTransform, rasterise
from localmim_jax.detection.boxes import ROI_STDS, encode
from localmim_jax.detection.buckets import make_buckets
from localmim_jax.detection.coco import CocoSource
from localmim_jax.detection.coco_ap import Categories, CocoAP, to_original
from localmim_jax.errors import DataError, StorageError
from tests.defaults import data_config

SLOTS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = shapes.prepare(str(tmp_path_factory.mktemp("data")), {"train": 2, "val": 14})
    return CocoSource(str(folder), "val")


def truth_of(source, batch):
    """The ground truth in pixels of the batch's images: boxes, labels and masks, with empty places at the end."""
    b = len(batch["id"])
    boxes, labels = np.zeros((b, SLOTS, 4), np.float32), np.full((b, SLOTS), -1)
    masks = np.zeros((b, SLOTS, 112, 112), np.float32)
    for row, index in enumerate(batch["id"]):
        if index < 0:
            continue
        objects, size = source.objects(int(index)), source.size_of(int(index))
        count = len(objects.labels)
        boxes[row, :count] = to_original(objects.boxes, size, batch["size"][row])
        labels[row, :count] = objects.labels
        for slot, (mask, box) in enumerate(zip(objects.segmentations, objects.boxes, strict=True)):
            masks[row, slot] = rasterise(mask, box, size, 112)
    return boxes, labels, masks


@jax.jit
def perfect(boxes, labels, masks, sizes):
    """What a detector that is always right predicts from slightly wrong regions, through the real selection."""
    rois = boxes + jnp.asarray([-2.0, 1.0, 1.0, 2.0]).reshape(1, 1, 4)
    real = labels >= 0
    logits = 40.0 * jax.nn.one_hot(jnp.where(real, labels, 5), 6)
    deltas = jnp.repeat(encode(rois, jnp.where(real[..., None], boxes, rois), ROI_STDS)[:, :, None], 5, axis=2)
    found = roi.select(logits, deltas, rois, real, sizes, 0.05, SLOTS)
    order = jnp.argmin(jnp.abs(found["boxes"][:, :, None] - boxes[:, None]).sum(axis=-1), axis=-1)
    own = jnp.take_along_axis(masks, order[..., None, None], axis=1)
    return found | {"masks": own.reshape(*own.shape[:2], 28, 4, 28, 4).mean(axis=(3, 5))}


def evaluate(source, change=lambda outputs: outputs, results=None, pictures=0):
    config = data_config(name="fake", image_size=(128, 192), batch_size=4, num_threads=1)
    metric = CocoAP(
        source.dataset, source.image_id, Categories(source.category_ids, source.class_names), results, pictures
    )
    buckets = make_buckets(source, config.image_size)
    for batch in eval_batches(config, source, 4, transform=DetectionEvalTransform(120, 192), groups=buckets):
        outputs = change(jax.device_get(perfect(*truth_of(source, batch), batch["size"])))
        valid = batch["valid"]
        metric.update({k: v[valid] for k, v in outputs.items()}, {k: v[valid] for k, v in batch.items()})
    return metric, metric.compute()


def test_perfect_predictions_reach_one_through_the_whole_path(source, tmp_path):
    """Resized images, encoded and decoded boxes, selection, masks of 28 x 28, pasted, as JSON, evaluated."""
    _, values = evaluate(source, results=tmp_path / "results.json", pictures=3)
    assert values["images"] == 14
    assert values["box/AP"] == pytest.approx(1.0, abs=1e-6)
    assert values["mask/AP50"] == values["mask/AP75"] == pytest.approx(1.0, abs=1e-6)
    assert values["mask/AP"] > 0.97, "28 x 28 cells cannot draw every point of a star to 0.95"
    assert values["crowded"] == 0
    assert values["pictures"].ndim == 4
    entry = json.loads((tmp_path / "results.json").read_text())[0]
    assert entry.keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert entry["category_id"] in shapes.CATEGORY_IDS
    assert coco_mask.decode(entry["segmentation"]).shape in ((96, 128), (128, 96))


def worse(outputs):
    rng = np.random.default_rng(0)
    outputs = dict(outputs)
    outputs["boxes"] = outputs["boxes"] + rng.normal(size=outputs["boxes"].shape) * 3
    outputs["scores"] = np.where(outputs["valid"], rng.random(outputs["scores"].shape), 0)
    outputs["labels"] = np.where(rng.random(outputs["labels"].shape) < 0.8, outputs["labels"], 0)
    return outputs


def test_the_numbers_are_pycocotools_own_on_the_same_results(source, tmp_path):
    metric, values = evaluate(source, worse)
    (tmp_path / "truth.json").write_text(json.dumps(source.dataset()))
    (tmp_path / "results.json").write_text(json.dumps(metric.results))
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        truth = COCO(tmp_path / "truth.json")
        by_hand = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), name)
        by_hand.evaluate()
        by_hand.accumulate()
        by_hand.summarize()
        ours = [values[f"{kind}/{key}"] for key in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")]
        theirs = [value if value >= 0 else np.nan for value in by_hand.stats[:6]]
        np.testing.assert_array_equal(ours, theirs)
    assert 0.02 < values["box/AP"] < 0.9
    assert np.isnan(values["box/AP_large"]), "no shape is that large"


def test_nothing_found_is_zero_and_no_image_is_an_error(source, tmp_path):
    _, values = evaluate(source, lambda outputs: outputs | {"valid": outputs["valid"] & False})
    assert values["box/AP"] == values["mask/AP50"] == 0
    assert values["detections"] == 0
    empty = CocoAP(source.dataset, source.image_id, Categories((1,), ("a",)))
    with pytest.raises(DataError, match="no image was evaluated"):
        empty.compute()
    with pytest.raises(StorageError, match="cannot be written"):
        evaluate(source, results=tmp_path / "missing" / "results.json")


def test_boxes_go_back_to_the_original_image():
    boxes = to_original(np.float32([[16, 12, 32, 60]]), size=(120, 160), original=(96, 320))
    np.testing.assert_allclose(boxes, [[32, 9.6, 64, 48]])
