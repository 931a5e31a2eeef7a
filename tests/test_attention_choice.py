"""Which attention a config gets on this machine, which has no GPU."""

import pytest

from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError
from localmim_jax.tasks.from_config import encoder_config, localmim_config


def config(attention, dtype="bfloat16"):
    config = parts.pretrain(parts.vit("vit_b"))
    config.model.update({"attention": attention, "dtype": dtype})
    return config


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_auto_is_xla_without_a_gpu_in_the_encoder_and_every_decoder(dtype):
    model = localmim_config(config("auto", dtype))
    assert {model.encoder.attention, *(decoder.attention for decoder in model.decoders())} == {"xla"}


@pytest.mark.parametrize(
    ("attention", "message"),
    [("flash", "must be one of auto, xla, cudnn"), ("cudnn", r"needs an NVIDIA GPU .* but here are cpu and bfloat16")],
)
def test_what_there_is_not_is_refused(attention, message):
    with pytest.raises(ConfigError, match=message):
        encoder_config(config(attention))
