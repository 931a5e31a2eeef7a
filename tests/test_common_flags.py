"""Flags that several commands have."""

import pytest
from absl import flags

from localmim_jax.errors import ConfigError
from localmim_jax.recipes import common_flags


def parsed(*arguments):
    values = flags.FlagValues()
    common_flags.define_checkpoint(values)
    common_flags.define_image_files(values)
    common_flags.define_batch_size(values, 64)
    values(["command", *arguments])
    return values


def test_the_first_missing_flag_is_named_with_an_example():
    options = parsed("--checkpoint=x")
    common_flags.require(options, checkpoint="runs/first")
    with pytest.raises(ConfigError, match="no --config given; for example --config=recipe"):
        common_flags.require(options, checkpoint="runs/first", config="recipe")
    with pytest.raises(ConfigError, match="no image given"):
        common_flags.require_images(options)
    common_flags.require_images(parsed("--images=a.jpg"))


def test_a_batch_has_an_image_at_least_unless_the_runs_own_size_is_the_default():
    assert parsed().batch_size == 64
    with pytest.raises(flags.IllegalFlagValueError):
        parsed("--batch_size=0")
    values = flags.FlagValues()
    common_flags.define_batch_size(values, 0)
    assert values(["command", "--batch_size=0"]) == ["command"]
