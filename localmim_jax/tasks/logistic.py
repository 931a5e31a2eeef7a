"""Multinomial logistic regression on frozen features: a linear probe with nothing to tune, by L-BFGS on the device.

The objective is scikit-learn's, C * sum of cross entropies + ||W||^2 / 2 with a free bias, which is convex: its minimum
depends neither on a rate, nor on a schedule, nor on the seed. The strength C is chosen on a held-out part of the
training split. DINOv2 and others report this probe beside the LARS one.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localmim_jax.errors import DataError

STRENGTHS = tuple(10.0**exponent for exponent in range(-6, 5))  # values of C, from strong to weak regularization
HELD_OUT = 5  # one image of so many of every class chooses C

_MAX_STEPS = 500
_TOLERANCE = 1e-5  # largest entry of the gradient, of the objective divided by C and the number of images

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted classifier.

    Attributes:
        mean, deviation: float32 [d], of the training features; deviation 1 where a feature is constant.
        kernel, bias: float32 [d, c] and [c], of the standardized features.
        strength: the C that was chosen.
        sweep: (C, accuracy, cross entropy) on the held-out part, for every C that was tried.
    """

    mean: np.ndarray
    deviation: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    sweep: tuple[tuple[float, float, float], ...]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Labels int64 [n] of features [n, d]."""
        return (((x - self.mean) / self.deviation) @ self.kernel + self.bias).argmax(axis=1)


def fit_probe(x: np.ndarray, y: np.ndarray, num_classes: int, strengths: tuple[float, ...] = STRENGTHS) -> Probe:
    """The probe of training features, its C chosen on a fifth of them and the classifier then fitted to all.

    Args:
        x: features [n, d], any real dtype.
        y: int labels [n] in 0..num_classes-1.
        num_classes: at least 2. A class without examples is never predicted.
        strengths: values of C. The highest held-out accuracy wins, of equals the lowest cross entropy.

    Raises:
        DataError: a feature is not finite, or there are fewer than two classes.
    """
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise DataError(f"the features of {int((~np.isfinite(x).all(axis=1)).sum())} training images are not finite")
    if len(np.unique(y)) < 2:
        raise DataError("a probe needs training images of at least two classes")
    mean, deviation = x.mean(axis=0, dtype=np.float64).astype(np.float32), x.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1).astype(np.float32)
    features, labels = jnp.asarray((x - mean) / deviation), jnp.asarray(y, jnp.int32)
    held_out = held_out_part(y)
    params = {"kernel": jnp.zeros((x.shape[1], num_classes)), "bias": jnp.zeros(num_classes)}
    sweep = []
    if held_out.any() and len(strengths) > 1:
        kept, left_out = (jnp.asarray(part, jnp.float32) for part in (~held_out, held_out))
        for strength in sorted(strengths):  # each starts from the one before, which is near
            params = fit(features, labels, kept, jnp.float32(strength), params)
            accuracy, loss = (float(value) for value in _score(params, features, labels, left_out))
            sweep.append((strength, accuracy, loss))
        best = max(sweep, key=lambda row: (row[1], -row[2]))[0]
    else:
        best = strengths[len(strengths) // 2]
    start = jax.tree.map(jnp.zeros_like, params)
    params = fit(features, labels, jnp.ones(len(x)), jnp.float32(best), start)
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    return Probe(
        mean, deviation, kernel, np.where(np.isin(np.arange(num_classes), y), bias, -np.inf), best, tuple(sweep)
    )


def held_out_part(y: np.ndarray) -> np.ndarray:
    """Whether each example chooses C: bool [n], every fifth of each class in its order, so never a class's only one."""
    held_out = np.zeros(len(y), bool)
    for label in np.unique(y):
        of_class = np.flatnonzero(y == label)
        held_out[of_class[HELD_OUT - 1 :: HELD_OUT] if len(of_class) >= HELD_OUT else of_class[1:2]] = True
    return held_out


@jax.jit
def fit(x: jax.Array, y: jax.Array, weight: jax.Array, strength: jax.Array, start: Params) -> Params:
    """The minimum of the objective from `start` on.

    Args:
        x: float32 [n, d].
        y: int32 [n].
        weight: float32 [n], 0 for what is left out.
        strength: C.
        start: "kernel" [d, c] and "bias" [c].
    """
    penalty = 1 / (strength * weight.sum())

    def objective(params: Params) -> jax.Array:
        losses = _losses(params, x, y)
        return (weight * losses).sum() / weight.sum() + 0.5 * penalty * jnp.square(params["kernel"]).sum()

    solver = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple) -> tuple:
        params, state, _, count = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = solver.update(gradient, state, params, value=value, grad=gradient, value_fn=objective)
        largest = functools.reduce(jnp.maximum, [jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)])
        return optax.apply_updates(params, updates), state, largest, count + 1

    def unfinished(carry: tuple) -> jax.Array:
        return (carry[2] > _TOLERANCE) & (carry[3] < _MAX_STEPS)

    begin = (start, solver.init(start), jnp.float32(jnp.inf), jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, begin)[0]


@jax.jit
def _score(params: Params, x: jax.Array, y: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(accuracy, cross entropy) of the examples of weight 1."""
    right = _logits(params, x).argmax(axis=1) == y
    return (weight * right).sum() / weight.sum(), (weight * _losses(params, x, y)).sum() / weight.sum()


def _losses(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = _logits(params, x)
    return jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]


def _logits(params: Params, x: jax.Array) -> jax.Array:
    return jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST) + params["bias"][None]
