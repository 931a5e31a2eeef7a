"""Pre-training that starts from a ViT of others: learned positions kept or reset, every prefix token kept."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from localmim_jax import params as trees
from localmim_jax.build import build_task
from localmim_jax.configs import parts
from localmim_jax.convert.recognize import recognize
from localmim_jax.errors import ConfigError
from localmim_jax.models.vit import ViT
from localmim_jax.models.vit_reg import ViTReg
from localmim_jax.recipes.override import override
from localmim_jax.tasks import from_config
from tests.defaults import encoder_config
from tests.shrink import shrink
from tests.test_convert_recognize import source

POSITIONS = "encoder/position_embedding"
REG = encoder_config("vit_reg_b", image_size=(24, 24), patch_size=8, width=16, depth=1, num_heads=2)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(1, 24, 24, 3)), jnp.float32)


def timms(tokens=1, registers=0, rows=9, width=16):
    """A ViT of one block under timm's names, every array drawn."""
    rng = np.random.default_rng(1)
    shapes = {
        "pos_embed": (1, rows, width),
        "patch_embed.proj.weight": (width, 3, 8, 8),
        "patch_embed.proj.bias": (width,),
    }
    shapes |= {"cls_token": (1, 1, width)} if tokens else {}
    shapes |= {"reg_token": (1, registers, width)} if registers else {}
    shapes |= {f"blocks.0.{norm}.{leaf}": (width,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")}
    layers = {"attn.qkv": (48, 16), "attn.proj": (16, 16), "mlp.fc1": (64, 16), "mlp.fc2": (16, 64)}
    for name, (out, into) in layers.items():
        shapes |= {f"blocks.0.{name}.weight": (out, into), f"blocks.0.{name}.bias": (out,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return {name: rng.normal(size=shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}


def tokens_of(weights, config):
    """What our encoder makes of the recognized arrays: [1, prefix + 9, 16]."""
    module = ViTReg if weights.info.family == "vit_reg" else ViT
    graphdef, abstract, _ = trees.split(lambda rngs: nnx.Dict(encoder=module(config, rngs=rngs)))
    wanted = {path: leaf.shape for path, leaf in trees.flatten(abstract).items()}
    found = {path: array for path, array in weights.arrays.items() if path.startswith("encoder/")}
    assert {path: array.shape for path, array in found.items()} == wanted
    params = trees.unflatten({path: jnp.asarray(array) for path, array in found.items()})
    return np.asarray(trees.merge(graphdef, params).encoder._embed(IMAGES, None))


def expected_tokens(arrays, prefix_positions):
    """timm's rule in numpy: prefix tokens, with their positions where there are any, then the patches with theirs."""
    kernel = arrays["patch_embed.proj.weight"]
    cells = np.asarray(IMAGES).reshape(3, 8, 3, 8, 3).transpose(0, 2, 4, 1, 3).reshape(9, 3, 8, 8)
    patches = np.einsum("ncyx,dcyx->nd", cells, kernel) + arrays["patch_embed.proj.bias"]
    positions = arrays["pos_embed"][0]
    prefix = [arrays[name][0] for name in ("cls_token", "reg_token") if name in arrays]
    prefix = np.concatenate(prefix)
    if prefix_positions:
        prefix, positions = prefix + positions[: len(prefix)], positions[len(prefix) :]
    return np.concatenate([prefix, patches + positions])


@pytest.mark.parametrize(
    ("tokens", "registers", "rows", "family"),
    [
        (1, 0, 10, "vit"),  # timm's usual ViT
        (1, 0, 9, "vit"),  # no_embed_class
        (0, 1, 9, "vit"),  # one register instead of a class token
        (1, 4, 9, "vit_reg"),  # timm's usual ViT with registers
        (1, 4, 14, "vit_reg"),  # positions for the prefix too
        (0, 4, 9, "vit_reg"),  # pooled, no class token
        (0, 4, 13, "vit_reg"),
    ],
)
def test_no_prefix_token_of_timm_is_lost(tokens, registers, rows, family):
    arrays = timms(tokens, registers, rows)
    weights = recognize(arrays, {}, "timm")
    assert (weights.info.family, weights.unexpected, weights.info.image_size) == (family, {}, (24, 24))
    if family == "vit":
        config = dataclasses.replace(
            encoder_config("vit_b", image_size=(24, 24), patch_size=8, width=16, depth=1, num_heads=2),
            position="learned",
        )
    else:
        config = dataclasses.replace(REG, num_registers=registers - (not tokens))
    np.testing.assert_allclose(
        tokens_of(weights, config)[0], expected_tokens(arrays, prefix_positions=rows > 9), rtol=1e-5, atol=1e-5
    )


@pytest.fixture
def learned(goldens, tmp_path):
    """A ViT with learned positions, width 32, 64 x 64 px, in a file."""
    arrays = source(goldens, "vit_classifier")
    np.savez(tmp_path / "learned.npz", **arrays)
    return tmp_path / "learned.npz", arrays


def pretraining(path, **changes):
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    config.image_size = (64, 64)
    config.model.update({"depth": 8, "num_heads": 4, "width": 32, "patch_size": 16, "taps": (2, 8)})
    config.model.target.cells = (8, 16)
    config.checkpoint.init_from = str(path)
    return override(config, [f"{key}={value}" for key, value in changes.items()], [])


def start(config):
    """(the task, the parameters it starts from, the model's own), without compiling anything."""
    task, _ = build_task(config, "")
    _, abstract, _ = trees.split(task.make_model)
    own = trees.map_with_path(lambda path, leaf: np.full(leaf.shape, 7, np.float32), abstract)
    return task, trees.flatten(task.init_from(own, {})[0]), own


def test_the_refusal_names_both_ways_out(learned):
    with pytest.raises(ConfigError, match=r"model\.position=learned.*checkpoint\.reset_positions=true"):
        start(pretraining(learned[0]))


def test_learned_positions_are_kept(learned):
    path, arrays = learned
    task, params, _ = start(pretraining(path, **{"model.position": "learned"}))
    np.testing.assert_array_equal(params[POSITIONS], arrays["pos_embed"][0])
    assert [decayed for pattern, decayed in task.weight_decay_rules if re.search(pattern, POSITIONS)] == [False]


def test_positions_are_reset(learned, caplog):
    path, arrays = learned
    with caplog.at_level("INFO", "absl"):
        _, params, _ = start(pretraining(path, **{"checkpoint.reset_positions": "true"}))
    assert POSITIONS not in params
    # The class token's position is no place: it stays part of the token.
    np.testing.assert_array_equal(params["encoder/class_token"], arrays["cls_token"][0, 0] + arrays["pos_embed"][0, 0])
    np.testing.assert_array_equal(params["encoder/patch_embed/bias"], arrays["patch_embed.proj.bias"])
    assert "checkpoint.reset_positions: the model's own" in caplog.text
    changes = {"checkpoint.reset_positions": "true", "model.position": "learned"}
    _, params, own = start(pretraining(path, **changes))
    np.testing.assert_array_equal(params[POSITIONS], trees.flatten(own)[POSITIONS])


def test_nothing_to_reset_is_said(goldens):
    config = pretraining("x.npz")
    config.checkpoint.update({"init_from": None, "reset_positions": True})
    with pytest.raises(ConfigError, match=r"reset_positions needs checkpoint\.init_from"):
        build_task(config, "")
    weights = recognize(source(goldens, "swin_classifier"), {}, "swin")
    from localmim_jax.convert.load import transfer

    with pytest.raises(ConfigError, match="has no positions to reset"):
        transfer(weights, {"encoder": {}}, weights.info, reset_positions=True)


def test_registers_are_configured_and_named(learned, tmp_path):
    np.savez(tmp_path / "reg.npz", **timms(1, 4, 9))
    with pytest.raises(ConfigError, match=r"the source is a vit_reg, the model a vit: .*vit_reg_s, vit_reg_b"):
        start(pretraining(tmp_path / "reg.npz"))
    config = pretraining(learned[0], **{"model.num_registers": "8"})
    with pytest.raises(ConfigError, match=r"model\.num_registers is 8, and model\.variant 'vit_b' has no registers"):
        from_config.encoder_config(config)
    config.model.variant = "vit_reg_b"
    assert from_config.encoder_config(config).num_registers == 8
    config.model.position = "fixed"
    with pytest.raises(ConfigError, match=r"model\.position is 'fixed': a ViT with registers learns"):
        from_config.encoder_config(config)
