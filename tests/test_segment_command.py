"""`localmim segment`: a mask and a picture an image, at its own size."""

import json

import numpy as np
import pytest
from PIL import Image

import localmim_jax
from localmim_jax.cli import program, segment
from localmim_jax.engine.checkpoints.write import Checkpointer
from localmim_jax.errors import ConfigError, DataError, StorageError
from localmim_jax.recipes.override import record
from localmim_jax.segmentation.overlay import colors
from localmim_jax.segmentation.task import RESULTS, model_config
from tests.defaults import checkpoint_settings
from tests.test_segmentation_task import drawn, tiny
from tests.test_visualize import photos  # noqa: F401


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that sees its second class everywhere, in a directory that names the classes."""
    place, config = tmp_path_factory.mktemp("run"), tiny()
    params, statistics = drawn(model_config(config))
    params["decode_head"]["classifier"]["linear"]["kernel"][:] = 0
    params["decode_head"]["classifier"]["linear"]["bias"][1] = 9
    checkpointer = Checkpointer(place / "checkpoints", checkpoint_settings())
    checkpointer.save(3, {"params": params, "model_state": statistics, "ema": {}, "step": np.int32(3)})
    checkpointer.close()
    (place / "config.json").write_text(json.dumps(record(config)))
    (place / RESULTS).write_text(json.dumps({"classes": ["wall", "sky", "tree"], "confusion": []}))
    return place


def parsed(*arguments):
    return program.parse(list(arguments), segment.define_flags, "images")


def test_a_mask_as_large_as_the_image_and_a_picture(run, photos, tmp_path, capsys):  # noqa: F811
    segment.main(parsed(f"--checkpoint={run}", f"--output={tmp_path}/new", *photos))
    written = capsys.readouterr().out.split()
    assert written == [f"{tmp_path}/new/x.png", f"{tmp_path}/new/x_2.png"]
    for path, photo in zip(written, photos, strict=True):
        mask = Image.open(path.replace(".png", "_classes.png"))
        assert mask.size == Image.open(photo).size
        assert mask.mode == "P"
        assert (np.asarray(mask) == 2).all(), "0 is no class in this dataset's masks"
        assert (np.asarray(mask.convert("RGB")) == colors(3)[1]).all()
        assert max(Image.open(path).size) > 480


def test_predict_of_the_api(run, photos):  # noqa: F811
    model = localmim_jax.load(run)
    found = model.predict([photos[0], Image.open(photos[1]), np.asarray(Image.open(photos[0]))])
    assert [each.labels.shape for each in found] == [(48, 40), (32, 32), (48, 40)]
    for each in found:
        assert each.labels.dtype == np.uint8
        assert (each.labels == 1).all()
        assert each.class_names == model.class_names == ("wall", "sky", "tree")
    with pytest.raises(ConfigError, match="is of the task segment, whose model has no pooled feature"):
        model.encode(photos[0])
    with pytest.raises(DataError, match=r"nowhere\.png: the file cannot be read"):
        model.predict("nowhere.png")


def test_scales_and_mirror_images_are_looked_at(run, photos):  # noqa: F811
    given = (["--ratios=0.5,1", "--flip"], [])
    seen = [segment.run_config(parsed(f"--checkpoint={run}", *flags, *photos)).eval for flags in given]
    assert [(tuple(section.ratios), section.flip) for section in seen] == [((0.5, 1.0), True), ((1.0,), False)]


def test_what_cannot_be_done(run, photos, tmp_path):  # noqa: F811
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html>")
    (tmp_path / "file").write_text("")
    for error, message, arguments in (
        (ConfigError, "no --checkpoint given", ["x.png"]),
        (ConfigError, "no image given", [f"--checkpoint={run}"]),
        (ConfigError, "numbers separated by commas", [f"--checkpoint={run}", "--ratios=a,b", *photos]),
        (ConfigError, "--ratios=-1: factors above 0 are needed", [f"--checkpoint={run}", "--ratios=-1", *photos]),
        (DataError, r"bad\.png: not an image", [f"--checkpoint={run}", *photos, str(bad)]),
        (DataError, "is a folder", [f"--checkpoint={run}", str(tmp_path)]),
        (DataError, "does not belong to a run", [f"--checkpoint={tmp_path}", *photos]),
        (DataError, "gone does not exist: give a run directory", [f"--checkpoint={tmp_path / 'gone'}", *photos]),
        (DataError, "give --config too", [f"--checkpoint={bad}", *photos]),
        (
            StorageError,
            "file cannot be written: it is a file; give another --output",
            [f"--checkpoint={run}", f"--output={tmp_path / 'file'}", *photos],
        ),
        (
            ConfigError,
            "is a pretrain model, not a segmentation model",
            [f"--checkpoint={run}", "--config=tests/tiny_config.py", *photos],
        ),
    ):
        with pytest.raises(error, match=message):
            segment.main(parsed(*arguments))
