"""Detection end to end: a run on annotations as odd as they come, and `localmim detect` on its model."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import localmim_jax
from localmim_jax import params as trees
from localmim_jax.api import fill_model
from localmim_jax.build import build_task
from localmim_jax.cli import detect as command
from localmim_jax.cli import program
from localmim_jax.configs import parts, quickstart_detect
from localmim_jax.convert.weights import Weights
from localmim_jax.data.builders.photos import photographs
from localmim_jax.detection import task
from localmim_jax.detection.mask_rcnn import MaskRCNN
from localmim_jax.errors import ConfigError, DataError
from tests.shrink import shrink
from tests.test_convert_command import save_run
from tests.training import train

SIZE = (60, 80)
NAMES = {3: "never there", 5: "block", 9: "dot"}


def polygon(box):
    left, top, width, height = box
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def odd_annotations(image):
    """(category, box, more) of each object of images 1 to 6."""
    dots = [(9, (2 + 3 * (i % 20), 2 + 3 * (i // 20), 2, 2), {}) for i in range(300)]
    crowd = {"iscrowd": 1, "segmentation": {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}}
    return {
        1: [],
        2: [(5, (0, 0, 64, 48), crowd)],
        3: [(5, (10, 10, 0, 20), {"area": 0}), (5, (90, 10, 9, 9), {})],
        4: dots,
        5: [(5, (8, 8, 24, 20), {}), (9, (40, 30, 9, 9), {}), (5, (0, 0, 64, 48), crowd)],
        6: [(5, (8, 8, 24, 20), {})],
    }[image]


def write_split(root, split, images):
    """Crops of a photograph with these annotations; image 6 is missing on disk."""
    (root / split).mkdir(parents=True)
    photograph = photographs("train")["coffee"]
    dataset = {"images": [], "annotations": [], "categories": [{"id": i, "name": NAMES[i]} for i in NAMES]}
    for image in images:
        name = f"{image}.png"
        dataset["images"].append({"id": image, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        if image != 6:
            photograph.crop((80 * image, 60, 80 * image + SIZE[1], 60 + SIZE[0])).save(root / split / name)
        for category, box, more in odd_annotations(image):
            entry = {"id": len(dataset["annotations"]) + 1, "image_id": image, "category_id": category}
            entry |= {"bbox": list(box), "area": box[2] * box[3], "iscrowd": 0, "segmentation": polygon(box)}
            dataset["annotations"].append(entry | more)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(dataset))


def config_for(root):
    config = shrink(parts.detect(parts.swin("swin_t")))
    config.image_size = (64, 64)
    config.batch_size = 4
    config.model.dtype = "float32"
    config.data.update({"name": f"coco:{root}", "split": "train", "skip_empty": False, "max_bad_fraction": 0.5})
    config.eval.update({"split": "val", "long_side": 64})
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run directory, its summary, the dataset's folder) of three steps of four images, two epochs."""
    root, workdir = tmp_path_factory.mktemp("odd"), tmp_path_factory.mktemp("run")
    write_split(root, "train", range(1, 7))
    write_split(root, "val", range(1, 6))
    config = config_for(root)
    return workdir, train(config, workdir), root


@pytest.mark.slow
def test_odd_images_are_trained_through_and_the_missing_one_is_named(run):
    workdir, summary, _ = run
    assert int(summary.state["step"]) == 3
    assert int(summary.state["bad_steps"]["total"]) == 0
    assert "6.png" in (workdir / "bad_examples.txt").read_text()
    assert json.loads((workdir / "categories.json").read_text())["categories"] == [
        {"id": number, "name": NAMES[number]} for number in sorted(NAMES)
    ]


@pytest.mark.slow
def test_every_image_is_evaluated_once_as_pycocotools_does_it_by_hand(run):
    workdir, summary, root = run
    results = json.loads((workdir / "detections.json").read_text())
    assert summary.evaluations["val/images"] == 5
    assert summary.evaluations["val/detections"] == len(results) / 5
    assert {entry["image_id"] for entry in results} <= set(range(1, 6))
    assert {entry["category_id"] for entry in results} <= set(NAMES)
    truth = COCO(root / "annotations" / "instances_val.json")
    evaluation = COCOeval(truth, truth.loadRes(str(workdir / "detections.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert summary.evaluations["val/mask/AP50"] == evaluation.stats[1] >= 0
    (picture,) = (workdir / "pictures").glob("val-pictures-*.png")
    assert np.asarray(Image.open(picture)).ndim == 3


def test_an_image_missing_from_the_evaluation_is_told_before_the_first_step(tmp_path):
    write_split(tmp_path, "train", [5])
    write_split(tmp_path, "val", [5, 6])
    with pytest.raises(DataError, match=r"lacks .*6.png; an evaluation needs every image"):
        build_task(config_for(tmp_path), "")


def parsed(*arguments) -> flags.FlagValues:
    return program.parse(arguments, command.define_flags, "images")


@pytest.mark.slow
def test_the_command_finds_what_the_evaluation_found(run, tmp_path, capsys):
    """The same detections as in the run's own results, drawn and as a file that pycocotools reads."""
    workdir, _, root = run
    images = [str(root / "val" / f"{i}.png") for i in (4, 1)]
    command.main(parsed(f"--checkpoint={workdir}", f"--output={tmp_path}/out", "--score=0.2", *images))
    said = capsys.readouterr().out.splitlines()
    assert [Path(line.split(":")[0]).name for line in said] == ["4.png", "1.png", "detections.json"]
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [(image["id"], image["file_name"]) for image in content["images"]] == list(enumerate(images, 1))
    known = json.loads((workdir / "detections.json").read_text())
    for number, image_id in ((1, 4), (2, 1)):
        mine = [entry for entry in content["annotations"] if entry["image_id"] == number]
        theirs = [entry for entry in known if entry["image_id"] == image_id]
        assert len(mine) == len(theirs) > 0
        for own, other in zip(mine, theirs, strict=True):
            assert own["category_id"] == other["category_id"]
            np.testing.assert_allclose(own["bbox"], other["bbox"], atol=1e-2)
            assert own["score"] == pytest.approx(other["score"], abs=1e-4)
            assert coco_mask.iou([own["segmentation"]], [other["segmentation"]], [0])[0, 0] > 0.98
    whole = COCO(tmp_path / "out" / "detections.json")
    assert len(whole.loadCats(whole.getCatIds())) == 3


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A run directory as training leaves it, with parameters as they begin."""
    workdir = tmp_path_factory.mktemp("untrained")
    config = config_for(workdir)
    model = task.model_config(config)

    def make_model(rngs):
        return MaskRCNN(model, rngs=rngs)

    def begin(path, leaf):
        if path.endswith(("bias", "scale")):
            return np.full(leaf.shape, path.endswith("scale"), np.float32)
        return np.random.default_rng(len(path)).normal(0, 0.1, leaf.shape).astype(np.float32)

    save_run(workdir, config, make_model, params=trees.map_with_path(begin, trees.split(make_model)[1]))
    (workdir / "categories.json").write_text(json.dumps({"categories": [{"id": i, "name": NAMES[i]} for i in NAMES]}))
    return workdir


def test_the_command_draws_and_writes_in_the_images_own_pixels(untrained, tmp_path, capsys):
    image = photographs("train")["coffee"].crop((100, 60, 260, 180))
    for name in ("wide.png", "tall.png"):
        image.transpose(Image.Transpose.ROTATE_90 if name == "tall.png" else Image.Transpose.FLIP_LEFT_RIGHT).save(
            tmp_path / name
        )
    images = [str(tmp_path / name) for name in ("wide.png", "tall.png")]
    command.main(parsed(f"--checkpoint={untrained}", f"--output={tmp_path}/out", "--score=0", *images))
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/out/detections.json"
    whole = COCO(tmp_path / "out" / "detections.json")
    assert [category["name"] for category in whole.loadCats(whole.getCatIds())] == [NAMES[i] for i in sorted(NAMES)]
    for number, (h, w) in enumerate([(120, 160), (160, 120)], 1):
        assert whole.loadImgs(number)[0].items() >= {"height": h, "width": w, "file_name": images[number - 1]}.items()
        found = whole.loadAnns(whole.getAnnIds(number))
        edges = np.array([[x, y, x + across, y + down] for x, y, across, down in (entry["bbox"] for entry in found)])
        assert edges.min() >= 0
        # They reach to the image's border or nearly, far beyond the 64 pixels that the model sees.
        reach = edges[:, 2:].max(axis=0) / (w, h)
        assert reach.min() > 0.9
        assert reach.max() <= 1 + 1e-6
        assert all(coco_mask.decode(entry["segmentation"]).shape == (h, w) for entry in found)
        assert all(0.05 < entry["score"] <= 1 for entry in found)
        drawn = np.asarray(Image.open(tmp_path / "out" / Path(images[number - 1]).name))
        assert drawn.shape == (4 * h, 4 * w, 3)
        assert (drawn != np.asarray(Image.open(images[number - 1]).resize((4 * w, 4 * h), 3))).any()


def test_predict_of_the_api(untrained):
    model = localmim_jax.load(untrained)
    image = photographs("train")["coffee"].crop((100, 60, 260, 180))
    (found,) = model.predict(image)
    count = len(found.scores)
    assert count > 0
    assert (found.boxes.shape, found.labels.shape, found.masks.shape) == ((count, 4), (count,), (count, 28, 28))
    assert (found.boxes.dtype, found.scores.dtype, found.masks.dtype) == (np.float32,) * 3
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes.min() >= 0
    np.testing.assert_array_less(found.boxes.max(axis=0), [160 + 1e-3, 120 + 1e-3] * 2)
    assert found.boxes[:, 2].max() > 0.9 * 160  # in pixels of the image, beyond the 96 that the model sees
    assert found.class_names == tuple(NAMES[i] for i in sorted(NAMES))
    assert set(found.labels) <= set(range(len(NAMES)))
    with pytest.raises(ConfigError, match="is of the task detect, whose model has no pooled feature"):
        model.encode(image)


def test_what_the_command_cannot_do_is_told_in_one_line(untrained, tmp_path):
    checkpoint, image = f"--checkpoint={untrained}", str(tmp_path / "1.png")
    photographs("train")["coffee"].crop((0, 0, 80, 60)).save(image)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"categories": [{"id": 1, "name": "a"}]}))
    for arguments, error, message in (
        ([image], ConfigError, "no --checkpoint given"),
        ([checkpoint], ConfigError, "no image given"),
        ([checkpoint, "--score=2", image], ConfigError, "from 0 to 1"),
        ([checkpoint, f"--categories={other}", image], ConfigError, "has 3 classes, but its categories name 1"),
        ([checkpoint, "--categories=nowhere", image], DataError, "nowhere is no file"),
        ([checkpoint, f"--categories={image}", image], DataError, "is not JSON"),
        ([checkpoint, str(tmp_path)], DataError, "is a folder: name the images"),
        ([checkpoint, str(tmp_path / "6.png")], DataError, "6.png: the file cannot be read"),
        ([checkpoint, str(other)], DataError, "other.json: "),
        ([checkpoint, "--config=configs/quickstart.py", image], ConfigError, "pretrain model, not a detector"),
    ):
        with pytest.raises(error, match=message) as found:
            command.main(parsed(f"--output={tmp_path}/none", *arguments))
        assert "\n" not in str(found.value)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (60, 96)}, "multiples of 32"),
        ({"image_size": (96, 64)}, "is portrait; give the landscape size"),
        ({"model.patch_size": 8}, "strides need 4"),
        ({"data.channels": 1}, "3 channels"),
        ({"data.crop_range": (60, 40)}, "crop_range"),
        ({"data.short_sides": ()}, "short_sides"),
        ({"data.crop_probability": 1.5}, r"must be in \[0, 1\]"),
        ({"eval.short_side": 0}, "must be positive"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    config = shrink(parts.detect(parts.swin("swin_t")))
    for key, value in changes.items():
        holder, _, name = key.rpartition(".")
        (config[holder] if holder else config)[name] = value
    with pytest.raises(ConfigError, match=message):
        build_task(config, "")


def test_other_classes_than_the_models_are_refused(tmp_path):
    write_split(tmp_path, "train", [5])
    write_split(tmp_path, "val", [5])
    config = config_for(tmp_path)
    config.model.num_classes = 7
    with pytest.raises(DataError, match=r"has 3 classes, and the model 7: set --config.model.num_classes=3"):
        build_task(config, "")


def test_padding_is_zero_after_normalizing():
    config = quickstart_detect.get_config()
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8))
    out = np.asarray(task.normalizer(config)({"image": image, "size": jnp.float32([[8, 12], [5, 7]])}))
    inside = (np.asarray(image[1, :5, :7], np.float32) / 255 - config.data.mean) / config.data.std
    np.testing.assert_allclose(out[1, :5, :7], inside, rtol=1e-5, atol=1e-5)
    assert not out[1, 5:].any()
    assert not out[1, :, 7:].any()
    assert out[0].all(axis=-1).mean() > 0.9


def test_the_recipe_is_swins_3x():
    config = parts.detect(parts.swin("swin_b"))
    assert (config.num_epochs, config.batch_size, tuple(config.schedule.milestone_epochs)) == (36, 16, (27, 33))
    assert (config.schedule.peak_lr, config.schedule.warmup_steps, config.optimizer.weight_decay) == (1e-4, 1000, 0.05)
    model = task.model_config(config)
    assert (model.rpn_samples, model.roi_samples) == (256, 512)
    assert (model.pre_nms_top_n, model.pre_nms_top_n_test, model.post_nms_top_n) == (2000, 1000, 1000)
    assert (model.detections, model.score_threshold, model.anchor_scale) == (100, 0.05, 8)
    data = config.data
    assert data.short_sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert (data.long_side, data.crop_probability, data.crop_sides, data.crop_range) == (
        1333,
        0.5,
        (400, 500, 600),
        (384, 600),
    )


def test_a_vits_batch_norms_come_with_its_checkpoint():
    config = shrink(parts.detect(parts.vit("vit_b")))
    config.image_size = (64, 64)
    config.model.depth = 8
    model = task.model_config(config)
    params, statistics = trees.initialize(lambda rngs: MaskRCNN(model, rngs=rngs), jax.random.key(0))
    assert statistics
    statistics = jax.tree.map(lambda leaf: leaf + 0.25, statistics)
    arrays = {path: np.asarray(leaf) for path, leaf in (trees.flatten(params) | trees.flatten(statistics)).items()}
    _, filled, found = fill_model(config, Weights(arrays, model.describe(), "here"))
    for mine, theirs in ((filled, params), (found, statistics)):
        assert jax.tree.all(jax.tree.map(np.array_equal, mine, theirs))
