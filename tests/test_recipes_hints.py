"""What is said of an accelerator or host whose memory is full; tests/test_cli.py has the rest of the hints."""

import jax.numpy as jnp
import pytest
from jax.errors import JaxRuntimeError

from localmim_jax.recipes import hints


def test_out_of_memory_on_a_real_device():
    with pytest.raises(JaxRuntimeError) as caught:
        jnp.zeros(2**46, jnp.uint8)
    assert "(6.55e+04 GiB asked for)" in hints.out_of_memory_hint(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory trying to allocate 8.50GiB."),
            "(8.50 GiB asked for)",
        ),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1024 bytes."), "(9.54e-07 GiB asked for)"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: full"), "raise accum_steps, set model.remat=true or lower batch_size"),
        (MemoryError(), "out of host memory"),
        (JaxRuntimeError("INTERNAL: a bug"), None),
        (ValueError("RESOURCE_EXHAUSTED: no space left on device"), None),
    ],
)
def test_out_of_memory(error, expected):
    hint = hints.out_of_memory_hint(error)
    assert expected in hint if expected else hint is None
