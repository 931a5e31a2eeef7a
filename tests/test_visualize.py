"""`localmim visualize`: one picture an image, under the mask that was asked for."""

import numpy as np
import pytest
from absl import flags
from PIL import Image

from localmim_jax.api import draw_sheet
from localmim_jax.cli import program, visualize
from localmim_jax.cli.convert import convert
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.evals import drawing
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.tasks import from_config
from tests.shrink import shrink
from tests.test_convert_command import save_run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two files with the same name and different content, one of them not square."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for folder, size in (("a", (48, 40)), ("b", (32, 32))):
        (root / folder).mkdir()
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / folder / "x.png")
    return [str(root / folder / "x.png") for folder in "ab"]


def tiny(swin: bool, kind: str):
    config = shrink(parts.pretrain(parts.swin("swin_t")) if swin else parts.pretrain(parts.vit("vit_b")))
    config.model.dtype = "float32"
    config.model.target.kind = kind
    if not swin:
        config.model.update({"depth": 2, "taps": (1, 2)})
        config.model.target.cells = (8, 16)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A ViT with HOG targets and a Swin with pixels, untrained."""
    made = {}
    for name, config in (("vit", tiny(False, "hog")), ("swin", tiny(True, "pixels"))):
        made[name] = tmp_path_factory.mktemp(name)
        model = from_config.localmim_config(config)
        save_run(made[name], config, lambda rngs, model=model: LocalMIM(model, rngs=rngs))
    return made


def parsed(arguments: list[str]) -> flags.FlagValues:
    return program.parse(arguments, visualize.define_flags, "images")


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_picture_an_image(runs, photos, tmp_path, capsys, name):
    visualize.main(parsed([f"--checkpoint={runs[name]}", f"--output={tmp_path}/new", *photos]))
    written = capsys.readouterr().out.split()
    assert written == [f"{tmp_path}/new/x.png", f"{tmp_path}/new/x_2.png"]
    first, second = (np.asarray(Image.open(path)) for path in written)
    (alone,) = (found.draw() for found in visualize.visualize(str(runs[name]), photos[1:]))
    np.testing.assert_array_equal(second, alone)  # whatever was drawn before it
    assert first.shape == second.shape
    assert (first != second).any()


def test_a_sheet_shows_all_images_at_one_scale(runs, photos, tmp_path, capsys):
    file = tmp_path / "made" / "sheet.png"
    visualize.main(parsed([f"--checkpoint={runs['vit']}", f"--sheet={file}", "--layer=1", *photos]))
    assert capsys.readouterr().out.split() == [str(file)]
    sheet = np.asarray(Image.open(file))
    found = visualize.visualize(str(runs["vit"]), photos)
    np.testing.assert_array_equal(sheet, draw_sheet(found, layer=1))
    assert (sheet != draw_sheet(found, layer=2)).any()
    side, gap = 160, drawing.GAP
    panels = sheet[-4 * (side + gap) :].reshape(4, side + gap, -1, 3)[:, :side, -2 * (side + gap) : -gap]
    for column, one in enumerate(found):
        image, visible, prediction, _ = panels[:, :, column * (side + gap) :][:, :, :side]
        np.testing.assert_array_equal(image, drawing.resize(one.image, (side, side)))
        masked = drawing.enlarge(one.mask, (side, side)) > 0
        np.testing.assert_array_equal(visible[masked], np.full_like(image[masked], 128))
        np.testing.assert_array_equal(prediction[~masked], image[~masked])
    with pytest.raises(ConfigError, match="the tapped layers are 1, 2"):
        draw_sheet(found, layer=7)
    with pytest.raises(ConfigError, match="add --sheet"):
        visualize.main(parsed([f"--checkpoint={runs['vit']}", "--layer=1", *photos]))


def masked_share(picture: np.ndarray) -> float:
    """The share of the masked panel, below the image, that is the gray of a masked patch, in patches."""
    left = np.flatnonzero((picture != 255).any(axis=(0, 2)) & ((picture == 128).all(-1).sum(0) > 8))
    return (picture[:, left] == 128).all(-1).sum() / 160**2


def test_mask_seed_and_ratio(runs, photos):
    def draw(**changes):
        return visualize.visualize(str(runs["vit"]), photos[:1], **changes)[0].draw()

    default = draw()
    assert (draw(mask_seed=3) != default).any()
    assert masked_share(default) == pytest.approx(0.75, abs=0.03)
    assert masked_share(draw(mask_ratio=0.5)) == pytest.approx(0.5, abs=0.03)


def test_what_cannot_be_done(runs, photos, tmp_path):
    vit = str(runs["vit"])
    for arguments, message in (
        ({"mask_ratio": 1.0}, "mask_ratio 1.0 keeps 0 of the 4"),
        ({"mask_seed": -1}, "must be from 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            visualize.visualize(vit, photos, **arguments)
    flattened = tiny(False, "hog")
    flattened.image_size = (32,)
    with pytest.raises(ConfigError, match="give height and width"):
        visualize.visualize(vit, photos, flattened)
    with pytest.raises(DataError, match="is a folder: name the images in it"):
        visualize.visualize(vit, [str(tmp_path)])
    with pytest.raises(DataError, match=r"none\.png: the file cannot be read \(No such file"):
        visualize.visualize(vit, [photos[0], "none.png"])
    (tmp_path / "x.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"x\.png: not an image"):
        visualize.visualize(vit, [str(tmp_path / "x.png")])
    convert(vit, str(tmp_path / "encoder.npz"), part="encoder")
    with pytest.raises(DataError, match="give --config too"):
        visualize.visualize(str(tmp_path / "encoder.npz"), photos)
    with pytest.raises(ConfigError, match=r"holds no decoders \(encoder\)"):
        visualize.visualize(str(tmp_path / "encoder.npz"), photos, tiny(False, "hog"))
    finetune = parts.finetune(parts.vit("vit_b"))
    with pytest.raises(ConfigError, match="is a finetune model, without decoders"):
        visualize.visualize(vit, photos, finetune)


@pytest.mark.parametrize(
    ("arguments", "message"), [(["x.png"], "no --checkpoint given"), (["--checkpoint=c"], "no image given")]
)
def test_flags(arguments, message):
    with pytest.raises(ConfigError, match=message):
        visualize.main(parsed(arguments))


def test_images_with_and_without_the_flag():
    assert parsed(["--checkpoint=c", "a.png", "--images=b.png", "c.png"]).images == ["b.png", "a.png", "c.png"]
