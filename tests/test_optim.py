import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.engine.optim import clip_by_norm, global_norm, make_optimizer
from localmim_jax.errors import ConfigError
from localmim_jax.params import flatten, unflatten
from tests.defaults import optimizer_settings

RULES = ((r"kernel$", True), (r"(bias|token)$", False))
SHAPES = {"embed/kernel": (3, 4), "blocks/0/kernel": (4, 4), "blocks/1/kernel": (4, 4), "head/bias": (4,)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return unflatten({path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()})


def run(settings, steps=5, rate=0.1, layer_of=None):
    """(our parameters after some steps, the float64 gradients that were used, the parameters at the start)."""
    optimizer = make_optimizer(settings, SHAPES, RULES, layer_of)
    params = start = draw(0)
    state, gradients = optimizer.init(params), [draw(1 + i) for i in range(steps)]
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params, jnp.float32(rate))
        params = jax.tree.map(jnp.add, params, updates)
    return flatten(params), [flatten(g) for g in gradients], flatten(start)


def test_adamw_equals_torchs_rule_written_out():
    settings = optimizer_settings(b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.3)
    found, gradients, start = run(settings)
    for path, p in start.items():
        p, m, v = np.float64(p), 0.0, 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = np.float64(gradient[path])
            p = p * (1 - 0.1 * (0.3 if path.endswith("kernel") else 0.0))
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            p = p - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        np.testing.assert_allclose(found[path], p, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lars", "momentum"])
def test_lars_and_momentum_equal_their_rules_written_out(name):
    found, gradients, start = run(optimizer_settings(name=name, momentum=0.7, weight_decay=0.2))
    for path, p in start.items():
        p, momentum = np.float64(p), 0.0
        for gradient in gradients:
            g = np.float64(gradient[path])
            if path.endswith("kernel"):
                g = g + 0.2 * p
                if name == "lars":
                    g = g * 0.001 * np.linalg.norm(p) / np.linalg.norm(g)
            momentum = 0.7 * momentum + g
            p = p - 0.1 * momentum
        np.testing.assert_allclose(found[path], p, rtol=2e-5, atol=1e-6)


def test_layer_decay_scales_the_rate_of_each_layer():
    layers = {"embed/kernel": 0, "blocks/0/kernel": 1, "blocks/1/kernel": 2, "head/bias": 3}
    optimizer = make_optimizer(optimizer_settings(layer_decay=0.5), SHAPES, RULES, layers.__getitem__)
    assert optimizer.lr_scale == {path: 0.5 ** (3 - layer) for path, layer in layers.items()}
    slow, _, start = run(optimizer_settings(layer_decay=0.5, weight_decay=0.0), 1, 0.1, layers.__getitem__)
    fast, _, _ = run(optimizer_settings(weight_decay=0.0), 1)
    for path, layer in layers.items():
        moved, unscaled = slow[path] - start[path], fast[path] - start[path]
        np.testing.assert_allclose(moved, unscaled * 0.5 ** (3 - layer), rtol=1e-4, atol=1e-7)
    with pytest.raises(ConfigError, match="does not number its layers"):
        make_optimizer(optimizer_settings(layer_decay=0.5), SHAPES, RULES)


def test_every_parameter_needs_exactly_one_rule_and_all_offenders_are_named():
    rules = ((r"kernel$", True), (r"embed", False))
    with pytest.raises(ConfigError) as error:
        make_optimizer(optimizer_settings(), SHAPES, rules)
    assert "embed/kernel matches 'kernel$' and 'embed'" in str(error.value)
    assert "head/bias matches none" in str(error.value)
    assert "blocks" not in str(error.value)


def test_clipping_only_shortens():
    gradients = draw(3)
    norm = float(np.sqrt(sum(np.sum(np.square(g)) for g in flatten(gradients).values())))
    assert float(global_norm(gradients)) == pytest.approx(norm, rel=1e-6)
    assert float(global_norm(clip_by_norm(gradients, jnp.float32(norm), norm / 3))) == pytest.approx(norm / 3, rel=1e-5)
    untouched = clip_by_norm(gradients, jnp.float32(norm), 2 * norm)
    jax.tree.map(np.testing.assert_array_equal, untouched, gradients)
