"""Attention statistics, CKA and gradient norms against closed forms and loops; maps are the encoder's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax import nnx

from localmim_jax.analysis import layers, shared
from localmim_jax.analysis.attention import statistics
from localmim_jax.analysis.gradients import layer_norms
from localmim_jax.analysis.layers import cka
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError, StorageError
from localmim_jax.models.swin import Swin
from localmim_jax.models.vit import ViT
from tests.defaults import swin_config, vit_config

N = 4
GROUP = np.zeros((1, N), np.int32)
PLACES = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]], np.int32)


def of(rows, group=GROUP, places=PLACES):
    return {k: float(v[0]) for k, v in statistics(jnp.asarray(rows)[None, None, None], group, places).items()}


def test_uniform_attention():
    found = of(np.full((N, N), 1 / N, np.float32))
    assert found["kl"] == pytest.approx(0, abs=1e-6)
    assert found["nmi"] == pytest.approx(0, abs=1e-6)
    assert found["distance"] == pytest.approx((0 + 1 + 1 + 2**0.5) / 4)


def test_one_hot_attention_to_oneself():
    found = of(np.eye(N, dtype=np.float32))
    assert found["nmi"] == pytest.approx(1, abs=1e-6)
    assert found["kl"] == pytest.approx(-np.log(1e-30), rel=1e-5)
    assert found["distance"] == 0


def test_equal_rows():
    found = of(np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (N, 1)))
    assert (found["kl"], found["nmi"]) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    one_key = of(np.tile(np.array([1, 0, 0, 0], np.float32), (N, 1)))
    assert one_key["nmi"] == 0


def test_against_a_loop():
    """Two windows, one of them cut in two, with a place of no image."""
    rng = np.random.default_rng(0)
    group = np.array([[-1, 0, 0, 0, 0], [0, 0, 1, 1, 1]], np.int32)
    places = rng.integers(0, 9, (2, 5, 2)).astype(np.int32)
    weights = rng.dirichlet(np.ones(5), size=(3, 2, 2, 5)).astype(np.float32)  # images, windows, heads, queries
    found = statistics(jnp.asarray(weights), group, places)
    for image in range(3):
        kl, nmi, far = [], [], []
        for head in range(2):
            divergences, informations, distances = [], [], []
            for window in range(2):
                for number in range(group[window].max() + 1):
                    inside = np.flatnonzero(group[window] == number)
                    p = weights[image, window, head][np.ix_(inside, inside)].astype(np.float64)
                    p /= p.sum(axis=1, keepdims=True)
                    for i, j in np.ndindex(p.shape):
                        distances.append(
                            p[i, j] * np.linalg.norm(places[window, inside[i]] - places[window, inside[j]])
                        )
                        if i != j:
                            divergences.append(sum(p[i] * np.log(p[i] / p[j])))
                    key = p.mean(axis=0)
                    information = sum(p[i, k] / len(p) * np.log(p[i, k] / key[k]) for i, k in np.ndindex(p.shape))
                    score = information / np.sqrt(np.log(len(p)) * -sum(key * np.log(key)))
                    informations += [score] * len(p)
            kl.append(np.mean(divergences))
            nmi.append(np.mean(informations))
            far.append(np.sum(distances) / (group >= 0).sum())
        for name, values in {"kl": kl, "nmi": nmi, "distance": far}.items():
            np.testing.assert_allclose(found[name][image], np.mean(values), rtol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_maps_are_what_the_encoder_weighs_by(kind):
    """Maps times values, projected, is what the layer itself gives."""
    if kind == "vit":
        config = vit_config(image_size=(32, 32), patch_size=8, width=16, depth=2, num_heads=2)
        encoder, blocks = ViT(config, rngs=nnx.Rngs(0)), 2
    else:
        config = swin_config(
            image_size=(32, 32), width=8, depths=(2, 1), num_heads=(2, 2), window=4, sparse_attention=("packed",) * 2
        )
        encoder, blocks = Swin(config, rngs=nnx.Rngs(0)), 3
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    found = encoder.attention(images, lambda weights, group, places: (weights, group, places))
    assert len(found) == blocks
    for weights, group, places in found:
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
        assert group.shape == weights.shape[1:2] + weights.shape[3:4] == places.shape[:2]
        assert sorted(map(tuple, places[group >= 0])) == sorted(np.ndindex(*(places.max(axis=(0, 1)) + 1)))
        other = (group[:, :, None] != group[:, None]) & (group >= 0)[:, :, None] & (group >= 0)[:, None]
        assert not np.any(np.asarray(weights) * other[None, :, None])
    if kind == "vit":
        attention, x = encoder.blocks[0].attention, encoder.blocks[0].norm1(encoder._embed(images, None))
        values = attention.split_heads(attention.qkv(x))[2]
        out = jnp.einsum("bhqk,bkhd->bqhd", found[0][0][:, 0], values).reshape(x.shape)
    else:
        layout = encoder._layouts(0, (8, 8), None)[0]
        attention, x = (
            encoder.stages[0].blocks[0].attention,
            encoder.stages[0].blocks[0].norm1(encoder._embed(images, None)),
        )
        values = attention._packed(x, layout)[2]
        out = jnp.einsum("bghqk,mbgkhd->mbgqhd", found[0][0], values)
        out = layout.unpack(out.reshape(*out.shape[:-2], -1))
    again = attention(x, *([] if kind == "vit" else [layout]))
    np.testing.assert_allclose(attention.proj(out), again, atol=1e-5)


def test_cka():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 5))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    a = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert cka(a, np.array([[1.0], [1.0], [-1.0], [-1.0]])) == pytest.approx(0)
    assert cka(a, np.ones((4, 2))) == 0
    y = rng.normal(size=(50, 3))
    center = np.eye(50) - 1 / 50
    k, m = center @ x @ x.T @ center, center @ y @ y.T @ center
    loop = sum(k[i, j] * m[i, j] for i, j in np.ndindex(50, 50))
    assert cka(x, y) == pytest.approx(loop / np.sqrt((k**2).sum() * (m**2).sum()))


def test_gradient_norm_of_a_linear_network():
    """y = b a x: the gradient of y is b x for a and a x for b."""

    def y(params):
        a, b = (params["encoder"]["blocks"][i]["kernel"] for i in "01")
        return (b * a * jnp.float32(2))[0]

    params = {"encoder": {"blocks": {"0": {"kernel": jnp.full(1, 3.0)}, "1": {"kernel": jnp.full(1, 5.0)}}}}
    layer = {"encoder/blocks/0/kernel": 1, "encoder/blocks/1/kernel": 2, "head": 3}.__getitem__
    np.testing.assert_allclose(layer_norms(jax.grad(y)(params), layer), [10, 6])


def test_analyses_refuse_before_they_compute(tmp_path):
    (tmp_path / "file").write_text("")
    values = flags.FlagValues()
    shared.define_flags(values, at="last", output="x")
    values(["command", "--runs=a", f"--output={tmp_path}/file/x"])
    with pytest.raises(StorageError, match=r"--output=.*/file/x: .*/file is a file; give another one"):
        shared.collect(values, lambda config, place: {})
    finetune = parts.finetune(parts.vit("vit_b"))
    with pytest.raises(ConfigError, match=r"is of the task finetune, whose config has no eval\.knn"):
        layers.measure(finetune, tmp_path)
