import json

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.augment import TrainTransform
from localmim_jax.data.decode import to_array
from localmim_jax.data.randaugment import OPS, RandAugmentConfig, RandAugmentTransform, apply, parse, rand_augment
from localmim_jax.errors import ConfigError

FILL = (124, 116, 104)


@pytest.fixture(scope="module")
def golden(goldens):
    file = dict(np.load(goldens / "randaugment.npz"))
    return file, json.loads(str(file["meta"]))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(("sign", "label"), [(1.0, "plus"), (-1.0, "minus")])
def test_every_op_equals_the_reference_exactly(golden, name, sign, label):
    file, meta = golden
    out = apply(name, Image.fromarray(file["image"]), 9.0, sign, tuple(meta["recipe"]["fill"]))
    np.testing.assert_array_equal(np.asarray(out), file[f"{name}/{label}"])
    arguments = meta[f"{name}/{label}"]
    assert [OPS[name][0](0.9, sign)] == (arguments or [0.0])


def test_the_recipe(golden):
    """Two of the fifteen ops, each with probability 1/2, at normal magnitudes."""
    _, meta = golden
    config = parse(meta["recipe"]["string"])
    assert config == RandAugmentConfig(magnitude=9.0, magnitude_std=0.5, num_ops=2, probability=0.5)
    assert list(OPS) == meta["recipe"]["ops"]
    assert config.num_ops == meta["recipe"]["num_layers"]
    assert config.probability == meta["recipe"]["apply_prob_per_op"]


def test_how_often_and_how_strongly_ops_are_applied(monkeypatch):
    seen, per_image = [], []

    def record(name, image, magnitude, sign, fill):
        seen.append((name, magnitude, sign))
        return image

    monkeypatch.setattr("localmim_jax.data.randaugment.apply", record)
    rng = np.random.default_rng(0)
    for _ in range(8000):
        before = len(seen)
        rand_augment(None, parse("rand-m9-mstd0.5-inc1"), FILL, rng)
        per_image.append(len(seen) - before)
    names, magnitudes, signs = zip(*seen, strict=True)
    assert np.bincount(per_image) / 8000 == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    shares = np.array([names.count(name) for name in OPS]) / len(names)
    assert shares == pytest.approx(np.full(15, 1 / 15), abs=0.012)
    assert np.mean(signs) == pytest.approx(0.0, abs=0.05)
    magnitudes = np.array(magnitudes)
    assert np.median(magnitudes) == pytest.approx(9.0, abs=0.03)
    assert np.std(magnitudes) == pytest.approx(0.49, abs=0.02)
    assert magnitudes.max() == 10.0
    assert np.mean(magnitudes == 10.0) == pytest.approx(0.0228, abs=0.006)


def test_the_same_generator_gives_the_same_image(golden):
    image = Image.fromarray(golden[0]["image"])
    config = parse("rand-m9-mstd0.5-inc1")
    draws = [np.asarray(rand_augment(image, config, FILL, np.random.default_rng(seed))) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert any(
        not np.array_equal(draws[0], np.asarray(rand_augment(image, config, FILL, np.random.default_rng(seed))))
        for seed in range(4, 8)
    )


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("magnitude", [0.0, 10.0])
def test_gray_images_and_both_ends_of_the_scale(golden, name, magnitude):
    image = Image.fromarray(golden[0]["image"]).convert("L")
    out = apply(name, image, magnitude, 1.0, (78,))
    assert out.mode == "L"
    assert out.size == image.size
    if magnitude == 0.0 and name not in ("AutoContrast", "Equalize", "Invert", "PosterizeIncreasing"):
        np.testing.assert_array_equal(np.asarray(out), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transform_crops_augments_and_keeps_the_label(golden, channels):
    image = golden[0]["image"][:, :, :channels]
    crop = TrainTransform((48, 32), channels, (0.3, 1.0), (3 / 4, 4 / 3), flip=True)
    transform = RandAugmentTransform.of(crop, "rand-m9-mstd0.5-inc1", (0.485, 0.456, 0.406)[:channels])
    assert transform.fill == FILL[:channels]
    finished = [transform({"image": image, "label": 4}, np.random.default_rng(seed)) for seed in range(20)]
    cropped = [to_array(crop.crop(image, np.random.default_rng(seed))) for seed in range(20)]
    assert {out["image"].shape for out in finished} == {(48, 32, channels)}
    assert {int(out["label"]) for out in finished} == {4}
    same = np.mean([np.array_equal(out["image"], plain) for out, plain in zip(finished, cropped, strict=True)])
    assert 0 < same < 0.6  # a quarter of the images meets no op


def test_other_channel_counts_are_refused():
    crop = TrainTransform((8, 8), 4, (0.3, 1.0), (3 / 4, 4 / 3), flip=True)
    with pytest.raises(ConfigError, match="1 or 3 channels, not 4"):
        RandAugmentTransform.of(crop, "rand-m9-mstd0.5-inc1", (0.5,) * 4)


@pytest.mark.parametrize(
    "recipe",
    [
        "",
        "rand",
        "rand-m9",
        "rand-m9-inc0",
        "augmix-m3-inc1",
        "rand-m9-m8-inc1",
        "rand-m11-inc1",
        "rand-m9-x1-inc1",
        "rand-m9-n2.5-inc1",
        "rand-m9-p2-inc1",
    ],
)
def test_other_recipes_are_refused_in_one_line(recipe):
    with pytest.raises(ConfigError, match=r"augment\.randaugment") as error:
        parse(recipe)
    assert "\n" not in str(error.value)
