"""Feature fusion against a plain numpy loop, and every reconstruction of Tables 1 and 2: shapes, gradients, loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Literal

from localmim_jax import params as trees
from localmim_jax.configs import table1, table2
from localmim_jax.errors import ConfigError
from localmim_jax.method.fusion import Fusion
from localmim_jax.method.localmim import LocalMIM, draw_mask, pretrain_loss
from localmim_jax.method.targets import make_targets
from localmim_jax.models.vit import ViTConfig
from localmim_jax.tasks import from_config
from tests.defaults import swin_config, vit_config
from tests.shrink import shrink

RUNS = sorted({*table1.sweep(), *table2.sweep()})
BATCH = 2
GRID, TOP_CELL = 2, {"vit": 16, "swin": 32}


def model_config(run: str, **changes):
    config = shrink(table1.make(run))
    config.update_from_flattened_dict({"model.dtype": "float32", "model.target.bins": 4} | changes)
    if "swin" in run:
        config.model.num_masks = BATCH
    return from_config.localmim_config(config)


def make(config):
    """(graph definition, parameters, images, mask), drawn by numpy, which compiles nothing."""
    graphdef, abstract, _ = trees.split(lambda rngs: LocalMIM(config, rngs=rngs))
    rng = np.random.default_rng(0)
    params = trees.map_with_path(lambda _, leaf: rng.normal(size=leaf.shape).astype(np.float32) / 4, abstract)
    images = rng.normal(size=(BATCH, *config.encoder.image_size, 3)).astype(np.float32)
    return graphdef, params, jnp.asarray(images), draw_mask(jax.random.key(2), config, BATCH)


def reached(function, params) -> list[set[str]]:
    """The parameters that each output of a function of them depends on, read off its jaxpr."""
    jaxpr = jax.make_jaxpr(function)(params).jaxpr
    paths = dict(zip(jaxpr.invars, trees.flatten(params), strict=True))
    found = []
    for output in jaxpr.outvars:
        needed = {output}
        for equation in reversed(jaxpr.eqns):
            if needed.intersection(equation.outvars):
                needed |= {var for var in equation.invars if not isinstance(var, Literal)}
        found.append({path for var, path in paths.items() if var in needed})
    return found


def expected(run: str) -> tuple[list[int], list[int]]:
    """The tapped layer and the target's grid of every decoder, in the shrunken model of four layers."""
    method = run.split("_b_")[1]
    scales = [8, 4, 2, 1] if run.startswith("vit") else [8, 4, 2, 2]
    top = [GRID]  # the native grid of the top layer, for both
    return {
        "global_single": ([4], top),
        "global_fusion": ([4], top),
        "global_multi": ([4] * 4, scales),
        "local_single": ([1, 2, 3, 4], top * 4),
        "local_multi": ([1, 2, 3, 4], scales),
    }[method]


def test_there_are_eight_runs_and_two_with_fusion():
    assert len(table1.sweep()) == 8
    assert len(RUNS) == 10


@pytest.mark.parametrize("run", RUNS)
def test_shapes_and_what_each_loss_reaches(run):
    config = model_config(run)
    graphdef, params, images, mask = make(config)
    taps, grids = expected(run)
    assert list(config.taps) == taps
    predictions = jax.eval_shape(lambda params: trees.merge(graphdef, params).predict(images, mask), params)
    targets = jax.eval_shape(lambda images: make_targets(images, config.target), images)
    assert [p.shape for p in predictions] == [(BATCH, side * side, 3 * 4) for side in grids]
    assert [t.shape for t in targets] == [p.shape for p in predictions]

    def losses(params):
        metrics = pretrain_loss(trees.merge(graphdef, params), images, mask)[1]
        return [value for name, value in metrics.items() if name != "loss"]

    is_vit, block_of = run.startswith("vit"), config.encoder.layer_of
    ends = list(range(1, 5)) if is_vit else [*np.cumsum(config.encoder.depths)]  # the last block of every layer
    found = reached(losses, params)
    assert len(found) == len(taps)
    for i, (tap, paths) in enumerate(zip(taps, found, strict=True)):
        own = {path for path in trees.flatten(params) if path.startswith((f"decoders/{i}/", "fusion/"))}
        encoder = {path for path in trees.flatten(params) if path.startswith("encoder/")}
        assert paths == own | {path for path in encoder if block_of(path) <= ends[tap - 1]}
    assert set.union(*found) == set(trees.flatten(params))


@pytest.mark.slow
def test_every_parameter_gets_a_gradient():
    """With two visible units, so that attention has a choice in the last stage too."""
    config = model_config("swin_b_global_fusion", **{"model.mask_ratio": 0.5})
    graphdef, params, images, mask = make(config)
    gradient = jax.jit(jax.grad(lambda params: pretrain_loss(trees.merge(graphdef, params), images, mask)[0]))(params)
    assert [path for path, g in trees.flatten(gradient).items() if not np.any(np.asarray(g))] == []


@pytest.mark.parametrize("run", RUNS)
def test_loss_by_hand(run):
    """Decoders that predict 0.5 everywhere, pixel targets and the masks' shares worked out in numpy."""
    config = model_config(run, **{"model.target.kind": "pixels"})
    graphdef, params, images, mask = make(config)
    flat = trees.flatten(params)
    for path in flat:
        if path.endswith("predict/kernel"):
            flat[path] = np.zeros_like(flat[path])
        elif path.endswith("predict/bias"):
            flat[path] = np.full_like(flat[path], 0.5)
    params = trees.unflatten(flat)
    loss = jax.jit(lambda params: pretrain_loss(trees.merge(graphdef, params), images, mask)[0])(params)

    total, pixels = 0.0, np.asarray(images, np.float64)
    side = pixels.shape[1]
    masked = np.kron(np.asarray(mask.masked), np.ones((side // GRID, side // GRID)))
    for grid in expected(run)[1]:
        cell, weights, errors = side // grid, [], []
        for image, dense in zip(pixels, masked, strict=True):
            for row, column in np.ndindex(grid, grid):
                place = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
                patch = image[place]
                target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
                weights.append(dense[place].mean())
                errors.append(np.mean((0.5 - target) ** 2))
        total += np.dot(weights, errors) / np.sum(weights)
    np.testing.assert_allclose(loss, total, rtol=1e-5)


@pytest.mark.parametrize(
    "encoder",
    [
        vit_config(image_size=(32, 32), patch_size=16, width=8, depth=3, num_heads=2),
        swin_config(image_size=(64, 64), patch_size=4, width=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)),
    ],
    ids=["vit", "swin"],
)
def test_fusion_is_the_sum_of_projected_means(encoder):
    """For every visible unit: the mean of each layer's tokens in it, times that layer's matrix, summed over layers."""
    fused = tuple(range(1, encoder.num_layers + 1))
    fusion = Fusion(encoder, fused, encoder.num_layers, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    is_vit, units = isinstance(encoder, ViTConfig), 3
    features = []
    for layer in fused:
        side = 1 if is_vit else encoder.feature_grid(layer)[0] // encoder.mask_grid[0]
        features.append(rng.normal(size=(2, is_vit + units * side**2, encoder.feature_width(layer))).astype(np.float32))
    found = fusion(tuple(map(jnp.asarray, features)))

    expected = np.zeros(found.shape)
    for feature, projection in zip(features, fusion.projections, strict=True):
        kernel, bias = np.asarray(projection.kernel[...]), np.asarray(projection.bias[...])
        tokens = feature.shape[1] // found.shape[1]
        for image, unit in np.ndindex(found.shape[:2]):
            mean = feature[image, unit * tokens : (unit + 1) * tokens].mean(axis=0)
            expected[image, unit] += mean @ kernel + bias
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pooling_keeps_neighbors_together():
    """A unit of 4 x 4 tokens, top grid with 2 x 2 in it: each quarter is averaged by itself."""
    encoder = swin_config(image_size=(64, 64), patch_size=4, width=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    fusion = Fusion(encoder, (1, 2), 2, rngs=nnx.Rngs(0))
    quarters = np.array([[0, 1], [2, 3]], np.float32).repeat(2, axis=0).repeat(2, axis=1)
    units = np.stack([quarters, 10 + quarters]).reshape(1, 32, 1)
    assert fusion.unit_side == 2
    np.testing.assert_array_equal(fusion._pool(jnp.asarray(units), 2)[0, :, 0], [0, 1, 2, 3, 10, 11, 12, 13])


@pytest.mark.parametrize("changes", [{"model.taps": (1, 4), "model.target.cells": (16, 16)}, {"model.fusion": (1, 5)}])
def test_impossible_fusion_is_refused(changes):
    with pytest.raises(ConfigError, match="so name one tap"):
        model_config("vit_b_global_fusion", **changes)
