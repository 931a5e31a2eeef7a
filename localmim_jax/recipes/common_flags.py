"""Flags that several commands have: the recipe, the checkpoint, images, and how they are read."""

from absl import flags

from localmim_jax.errors import ConfigError


def define_recipe(values: flags.FlagValues, recipe: str = "recipe, a Python file") -> None:
    """--config of a command that needs a recipe."""
    flags.DEFINE_string("config", None, f"{recipe}; --config.a.b=value changes a key", flag_values=values)


def define_checkpoint(
    values: flags.FlagValues, config: str = "recipe of the model; default: the config of the checkpoint's run"
) -> None:
    """--checkpoint, and --config for a checkpoint that belongs to no run."""
    flags.DEFINE_string("checkpoint", None, "run directory, one of its checkpoints, or a file", flag_values=values)
    flags.DEFINE_string("config", "", config, flag_values=values)


def define_standard_merging(values: flags.FlagValues) -> None:
    """--standard_merging, for what `convert.weights` cannot tell from names."""
    flags.DEFINE_bool(
        "standard_merging",
        None,
        "standard order of patch merging in a Swin pre-training file; default: inferred from decoders",
        flag_values=values,
    )


def define_image_files(values: flags.FlagValues) -> None:
    """--images, which takes the arguments without a flag too."""
    flags.DEFINE_multi_string(
        "images", [], "image file; may be repeated, or given without the flag", flag_values=values
    )


def define_resize(values: flags.FlagValues) -> None:
    """--resize of evaluation."""
    flags.DEFINE_integer(
        "resize",
        None,
        "short side in pixels before the center crop; default: as in evaluation; 0: 256 for every 224",
        flag_values=values,
        lower_bound=0,
    )


def define_high_bit_depth(values: flags.FlagValues) -> None:
    """--high_bit_depth, for images of another kind than those of training."""
    flags.DEFINE_string(
        "high_bit_depth",
        None,
        "levels of images with more than 8 bits: max, percentile or BLACK:WHITE; default: as in the run",
        flag_values=values,
    )


def define_runs(values: flags.FlagValues) -> None:
    """--runs."""
    flags.DEFINE_list("runs", [], "run directories, separated by commas", flag_values=values)


def define_data_dir(values: flags.FlagValues, default: str) -> None:
    """--data_dir; `default` says what an empty one stands for."""
    flags.DEFINE_string("data_dir", "", f"directory of the TFDS datasets; empty: {default}", flag_values=values)


def define_batch_size(values: flags.FlagValues, default: int) -> None:
    """--batch_size of inference; a default of 0 stands for the run's own."""
    meaning = "images per batch" + ("" if default else "; 0: as in the run")
    flags.DEFINE_integer("batch_size", default, meaning, flag_values=values, lower_bound=min(default, 1))


def require(options: flags.FlagValues, **examples: str) -> None:
    """Raises ConfigError for the first of these flags that has no value; `examples` are values to show."""
    for name, example in examples.items():
        if not options[name].value:
            raise ConfigError(f"no --{name} given; for example --{name}={example}")


def require_images(options: flags.FlagValues) -> None:
    """Raises ConfigError where no image file is named."""
    if not options.images:
        raise ConfigError("no image given; name files, for example photo.jpg or holiday/*.jpg")
