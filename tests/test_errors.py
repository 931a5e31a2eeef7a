"""Errors as one line, and what is said of an accelerator or host whose memory is full."""

import jax.numpy as jnp
import pytest
from jax.errors import JaxRuntimeError

from localmim_jax import errors


@pytest.mark.parametrize("kind", [errors.DataError, errors.ConfigError, errors.StorageError])
def test_the_text_is_one_printable_line_whatever_a_file_is_called(kind):
    error = kind("photos/a\nb\r\x1b[2J\u2028\udcff é.jpg: it is empty")
    assert str(error) == r"photos/a\nb\r\x1b[2J\u2028\udcff é.jpg: it is empty"
    assert len(str(error).splitlines()) == 1
    assert errors.printable(str(error)) == str(error)


def test_out_of_memory_on_a_real_device():
    with pytest.raises(JaxRuntimeError) as caught:
        jnp.zeros(2**46, jnp.uint8)
    assert "(6.55e+04 GiB asked for)" in errors.out_of_memory_hint(caught.value)


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
    hint = errors.out_of_memory_hint(error)
    assert expected in hint if expected else hint is None
