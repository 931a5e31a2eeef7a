import pytest
from absl import flags

from localmim_jax.bench import gpu_hours
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError
from tests.shrink import shrink


def options(config, *arguments):
    values = flags.FlagValues()
    gpu_hours.define_flags(values)
    values(["bench", *arguments])
    values["config"].value = config
    return values


def test_hours():
    assert gpu_hours.hours(1000.0, 3_600_000) == pytest.approx(1.0)
    assert gpu_hours.hours(500.0, 1_281_167, 100.0) == pytest.approx(71.176, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (parts.detect(parts.swin("swin_t")), (), "this recipe's task is detect"),
        (parts.pretrain(parts.vit("vit_b")), ("--batch_sizes=32,many",), "--batch_sizes=32,many: whole numbers"),
        (parts.pretrain(parts.vit("vit_b")), (), "8 devices: this benchmark needs exactly one"),
    ],
)
def test_what_cannot_be_timed_is_refused(config, arguments, message):
    with pytest.raises(ConfigError, match=message):
        gpu_hours.main(options(config, *arguments))


@pytest.mark.slow
def test_a_real_step_is_timed_at_its_batch_size():
    config = shrink(parts.pretrain(parts.swin("swin_t")))
    config.num_steps = 6
    rate, gib = gpu_hours.measure_batch(config, 16, steps=1, rounds=1)
    assert rate > 0
    assert gib is None or gib > 0
    assert (config.batch_size, config.model.num_masks) == (16, 1)
