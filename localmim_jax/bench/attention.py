"""Compare XLA's attention with cuDNN's fused kernel: speed and difference.

    localmim bench attention [--batch=256] [--rounds=10]

Forward and backward pass in bfloat16, with the shapes of our models. The difference is that of outputs and gradients
from float32, relative to their norm. Both should show only the rounding of bfloat16, about 0.003 to 0.006. This needs
an NVIDIA GPU.
"""

import jax
import jax.numpy as jnp
from absl import flags

from localmim_jax.bench.step_time import median_seconds
from localmim_jax.errors import ConfigError
from localmim_jax.models.blocks import attend

# (what, tokens, heads, width of a head, whether there is a bias)
SHAPES = (
    ("ViT-B encoder, pre-training", 50, 12, 64, False),
    ("decoder, pre-training", 197, 8, 32, False),
    ("ViT-B, fine-tuning", 197, 12, 64, False),
    ("ViT-B, segmentation", 1025, 12, 64, True),
)


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "batch", 256, "number of sequences; a quarter of it where there is a bias", flag_values=values, lower_bound=4
    )
    flags.DEFINE_integer("rounds", 10, "timed rounds, after one warm-up round", flag_values=values, lower_bound=1)


def main(options: flags.FlagValues) -> None:
    if jax.default_backend() != "gpu":
        raise ConfigError(f"cuDNN's attention needs an NVIDIA GPU; jax found {jax.devices()[0].device_kind}")
    print(
        f"{jax.devices()[0].device_kind}, batch {options.batch}\n{'':30} {'xla ms':>8} {'cudnn ms':>8} {'ratio':>6} ",
        end="",
    )
    print(f"{'xla diff':>9} {'cudnn diff':>10}")
    for name, tokens, heads, width, with_bias in SHAPES:
        batch = options.batch // 4 if with_bias else options.batch
        keys = jax.random.split(jax.random.key(0), 5)
        q, k, v, weights = (jax.random.normal(key, (batch, tokens, heads, width)) for key in keys[:4])
        bias = jax.random.normal(keys[4], (1, heads, tokens, tokens)) if with_bias else None

        def outcome(q, k, v, bias, weights, implementation):
            def loss(q, k, v, bias):
                out = attend(q, k, v, bias, None, implementation)
                return (out * weights).astype(jnp.float32).sum(), out

            (_, out), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v, bias)
            return out, gradients

        compiled = jax.jit(outcome, static_argnums=5)
        with jax.default_matmul_precision("float32"):
            exact = compiled(q, k, v, bias, weights, "xla")
        half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
        arguments = (*half, bias, weights.astype(jnp.bfloat16))
        seconds, differences = {}, {}
        for way in ("xla", "cudnn"):
            differences[way] = _difference(compiled(*arguments, way), exact)
            seconds[way] = median_seconds(compiled, (*arguments, way), options.rounds)
        xla, cudnn = seconds["xla"] * 1e3, seconds["cudnn"] * 1e3
        print(f"{name:30} {xla:8.3g} {cudnn:8.3g} {xla / cudnn:6.2f} ", end="")
        print(f"{differences['xla']:9.2g} {differences['cudnn']:10.2g}", flush=True)


def _difference(found, exact) -> float:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True)
    return max(float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel())) for a, b in pairs)
