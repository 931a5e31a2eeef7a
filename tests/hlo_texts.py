"""Writes tests/hlo/*.txt: a small program as XLA compiles it for hardware that is not here.

    python -m tests.hlo_texts        in the environment of `make test-plan`

A data-parallel gradient over two layers, in two micro-batches, with its named scopes. What `tests/test_planning.py`
expects of these files was counted by hand.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from localmim_jax.planning import hardware
from localmim_jax.planning.compile import GPU_OPTIONS, devices_of

FOLDER = Path(__file__).parent / "hlo"
BATCH, WIDTH, HIDDEN = 64, 48, 96  # of each of the two micro-batches


def loss(params, x):
    with jax.named_scope("encoder"):
        with jax.named_scope("block_01"):
            hidden = jnp.tanh(x @ params["first"])
    with jax.named_scope("decoder_8px"):
        return jnp.mean((hidden @ params["second"]) ** 2)


def step(params, batch):
    def micro(total, x):
        return jax.tree.map(jnp.add, total, jax.grad(loss)(params, x)), None

    with jax.named_scope("gradients"):
        gradients, _ = jax.lax.scan(micro, jax.tree.map(jnp.zeros_like, params), batch)
    with jax.named_scope("optimizer"):
        return jax.tree.map(lambda p, g: p - 0.1 * g.astype(jnp.float32), params, gradients)


def compile_text(name: str) -> str:
    target = hardware.parse(name)
    devices = devices_of(target)
    mesh = Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, P())
    params = {
        "first": jax.ShapeDtypeStruct((WIDTH, HIDDEN), jnp.float32, sharding=whole),
        "second": jax.ShapeDtypeStruct((HIDDEN, WIDTH), jnp.float32, sharding=whole),
    }
    batch = jax.ShapeDtypeStruct((2, BATCH, WIDTH), jnp.float32, sharding=NamedSharding(mesh, P(None, "data")))
    lowered = (
        jax.jit(step, donate_argnums=0, out_shardings=whole)
        .trace(params, batch)
        .lower(lowering_platforms=(target.device.platform,))
    )
    text = lowered.compile(GPU_OPTIONS if target.device.platform == "cuda" else None).as_text()
    return re.sub(r"\nFileNames\n.*?\n\n\n", "\n", text, flags=re.DOTALL)  # paths of this machine


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in ("h100x2", "v5e-4"):
        (FOLDER / f"{name}.txt").write_text(compile_text(name))


if __name__ == "__main__":
    main()
