"""Estimate the device hours of pre-training (supplement, B).

    localmim bench gpu_hours --config=configs/vit_b_1600ep.py [--batch_sizes=32,48,64,128,256]
        [--examples=1281167] [--steps=20] [--rounds=3]

The supplement reports hours of one Tesla V100. For each batch size, the recipe's real training step is compiled and
timed on one device, with generated images that are already on it; the fastest batch size is used. The command prints
device hours for one epoch of --examples images and for the whole recipe. Not included are reading and augmenting
images, compilation, evaluation, checkpoints, and communication between devices. The supplement times whole epochs of
the PyTorch release, reading included.
"""

import gc
import statistics

import jax
from absl import flags
from ml_collections import ConfigDict

from localmim_jax.bench.step_time import measure, prepare
from localmim_jax.errors import ConfigError, out_of_memory_hint
from localmim_jax.recipes import common_flags

IMAGENET_EXAMPLES = 1_281_167
BATCH_SIZES = ("32", "48", "64", "128", "256")  # the supplement's


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_recipe(values)
    flags.DEFINE_list("batch_sizes", list(BATCH_SIZES), "batch sizes to time", flag_values=values)
    flags.DEFINE_integer("examples", IMAGENET_EXAMPLES, "images per epoch", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("steps", 20, "timed steps per round", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "number of rounds; the median is used", flag_values=values, lower_bound=1)


def hours(images_per_second: float, examples: int, epochs: float = 1.0) -> float:
    """Hours that one device takes to see `examples` images `epochs` times."""
    return examples * epochs / images_per_second / 3600


def measure_batch(config: ConfigDict, batch_size: int, steps: int, rounds: int) -> tuple[float, float | None] | None:
    """(images/s, GiB in use) at a batch size; None where it does not fit in memory."""
    config.batch_size = batch_size
    config.accum_steps = 1
    if "num_masks" in config.model:
        config.model.num_masks = 1  # one a device, as in the release
    try:
        spec, batches = prepare(config)
        results = [measure(spec, batches, steps) for _ in range(rounds)]
    except Exception as error:
        if out_of_memory_hint(error) is None:
            raise
        return None
    finally:
        gc.collect()
    return statistics.median(result["images/s"] or 0.0 for result in results), results[0]["step GiB/device"]


def main(options: flags.FlagValues) -> None:
    config = options.config
    try:
        batch_sizes = [int(size) for size in options.batch_sizes]
    except ValueError as error:
        raise ConfigError(
            f"--batch_sizes={','.join(options.batch_sizes)}: whole numbers separated by commas are needed"
        ) from error
    if config.task != "pretrain":
        raise ConfigError(
            f"--config: device hours are measured for pre-training, and this recipe's task is {config.task}"
        )
    if jax.device_count() > 1:
        raise ConfigError(
            f"{jax.device_count()} devices: this benchmark needs exactly one; select it, for example "
            "with CUDA_VISIBLE_DEVICES=0"
        )
    epochs = config.num_epochs or config.num_steps * config.batch_size / options.examples
    print(f"{jax.devices()[0].device_kind}, {config.model.variant}, {config.model.dtype}, {options.examples} images")
    print(f"{'batch':>6} {'images/s':>9} {'GiB':>6} {'hours/epoch':>12} {f'hours/{epochs:g} epochs':>20}")
    rates: dict[int, float] = {}
    for size in batch_sizes:
        result = measure_batch(config, size, options.steps, options.rounds)
        if result is None:
            print(f"{size:6}  does not fit in memory", flush=True)
            continue
        rates[size], gib = result
        memory = "-" if gib is None else f"{gib:.3g}"
        epoch, whole = hours(rates[size], options.examples), hours(rates[size], options.examples, epochs)
        print(f"{size:6} {rates[size]:9.4g} {memory:>6} {epoch:12.4g} {whole:20.5g}", flush=True)
    if not rates:
        raise ConfigError(
            "no batch size fits in memory; try smaller ones with --batch_sizes or --config.model.remat=true"
        )
    best = max(rates, key=lambda size: rates[size])
    print(f"best: batch {best}, {hours(rates[best], options.examples):.4g} device hours an epoch")
    print("without reading images, compilation, evaluation, checkpoints and communication")
