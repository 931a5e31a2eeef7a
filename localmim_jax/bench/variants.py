"""Time the training step of one config under several settings.

    localmim bench variants --config=configs/fake_data_benchmark.py --config.batch_size=256 \\
        [--steps=10] as-is model.attention=cudnn "model.remat=true batch_size=512"

The settings are timed on this device, one after the other. Each argument is one or more key=value, separated by spaces,
that change the config; `as-is` is the config itself. There is one line per setting: images/s, speed relative to the
first line, model FLOP/s and their fraction of the rate of a large matrix product on this device, and memory. A setting
that does not fit in memory is reported, and the others continue.
"""

import copy
import gc
from collections.abc import Iterable

import jax
from absl import flags

from localmim_jax.bench import peak
from localmim_jax.bench.step_time import measure, prepare
from localmim_jax.errors import ConfigError, out_of_memory_hint
from localmim_jax.recipes import common_flags
from localmim_jax.recipes.override import override

POSITIONAL = "settings"


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_recipe(values)
    flags.DEFINE_integer("steps", 10, "timed steps, after two warm-up steps", flag_values=values, lower_bound=1)
    flags.DEFINE_list("settings", [], "settings; may be given without the flag", flag_values=values)


COLUMNS = {"images/s": 9, "ratio": 6, "ms/step": 8, "TFLOP/s": 8, "share": 6, "GiB": 6, "compile s": 9}


def main(options: flags.FlagValues) -> None:
    if not options.settings:
        raise ConfigError("no settings to compare; for example: as-is model.attention=cudnn")
    configs = {
        setting: override(copy.deepcopy(options.config), [] if setting == "as-is" else setting.split())
        for setting in options.settings
    }
    dtype = options.config.model.dtype
    most = peak.matmul_flops(dtype, 8192 if jax.default_backend() != "cpu" else 512)
    print(f"{jax.devices()[0].device_kind}: a large {dtype} matrix product reaches {most / 1e12:.4g} TFLOP/s")
    _print_row(COLUMNS, "setting")
    first = 0.0
    for setting, config in configs.items():
        try:
            spec, batches = prepare(config)
            result = measure(spec, batches, options.steps)
        except Exception as error:
            if out_of_memory_hint(error) is None:
                raise
            _print_row(["-"] * len(COLUMNS), f"{setting}: does not fit")
            continue
        memory = result["step GiB/device"]
        rate, seconds, work, compiling = (
            result[name] or 0.0
            for name in ("images/s", "step seconds (median)", "model TFLOP/s/device", "compile seconds")
        )
        first = first or rate
        row = (
            f"{rate:.5g}",
            f"{rate / first:.3f}",
            f"{seconds * 1e3:.4g}",
            f"{work:.4g}",
            f"{work * 1e12 / most:.3f}",
            "-" if memory is None else f"{memory:.3g}",
            f"{compiling:.3g}",
        )
        _print_row(row, setting)
        del spec, batches
        gc.collect()


def _print_row(cells: Iterable[str], setting: str) -> None:
    print(
        " ".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)), setting, flush=True
    )
