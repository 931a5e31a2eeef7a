"""Plan a run on hardware you do not have: memory, speed, traffic, cost.

    localmim plan --config=configs/vit_b_100ep.py --hardware=h100x8 [--price_per_hour=2.5] [--output=plan.json]
    localmim plan --config=configs/vit_b_100ep.py --hardware=v5e-16 --compare="model.remat=true" --compare=mesh.fsdp=16

The real training step is compiled for GPUs (h200, h100, a100, l4, v100; several as in h100x8) or TPU slices
(tpu-v4-8, v5e-16, v5p-8, v6e-8, ...), which takes minutes for a large model. `pip install "localmim-jax[plan-gpu]"`
and `[plan-tpu]` install the compilers. docs/planning.md explains every number. If the step does not fit, it is also
compiled with remat, fsdp and gradient accumulation, and the largest batch that fits is searched for.
"""

import copy
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError
from localmim_jax.files import write_json
from localmim_jax.recipes import common_flags
from localmim_jax.recipes.override import override

_GIB = 2**30


def define_flags(values: flags.FlagValues) -> None:
    common_flags.define_recipe(values)
    flags.DEFINE_string("hardware", None, "devices, such as h100x8 or v5e-16", flag_values=values)
    flags.DEFINE_multi_string(
        "compare", [], "key=value, or several separated by spaces: another setting to compare with", flag_values=values
    )
    flags.DEFINE_float(
        "price_per_hour", None, "price of one device; prints the cost of the run", flag_values=values, lower_bound=0.0
    )
    flags.DEFINE_bool("largest_batch", False, "search for the largest batch even if the step fits", flag_values=values)
    flags.DEFINE_integer(
        "compilations",
        6,
        "maximum number of other settings to compile in search of one that fits",
        flag_values=values,
        lower_bound=0,
    )
    flags.DEFINE_string("output", None, "JSON file to write", flag_values=values)


def main(options: flags.FlagValues) -> None:
    common_flags.require(options, hardware="h100x8")
    import jax

    from localmim_jax.planning import hardware as hardwares
    from localmim_jax.planning.compile import require_compiler

    hardware = hardwares.parse(options.hardware)
    require_compiler(hardware)
    if options.output and not Path(options.output).resolve().parent.is_dir():
        raise ConfigError(f"--output={options.output}: there is no such directory")
    jax.config.update("jax_platforms", "cpu")  # nothing runs on a device that may be here
    settings = {"as-is": options.config}
    for text in options.compare:
        settings[text] = override(copy.deepcopy(options.config), text.split())
    plans = {}
    for name, config in settings.items():
        if len(settings) > 1:
            print(f"== {name}")
        plans[name] = _plan(config, hardware, options)
    if len(plans) > 1:
        print("\n" + _side_by_side(plans))
    if options.output:
        write_json(Path(options.output), plans if len(plans) > 1 else plans["as-is"])


def _plan(config: ConfigDict, hardware: Any, options: flags.FlagValues) -> dict[str, Any]:
    """Prints and returns the plans of every shape of a config's batches, and what was searched."""
    from localmim_jax.planning import compile as compilers
    from localmim_jax.planning import fit, report

    devices = compilers.devices_of(hardware)
    programs = []
    for compiled in compilers.compile_for(config, hardware, devices):
        programs.append(report.numbers(compiled, hardware, options.price_per_hour))
        print("\n".join(report.lines(programs[-1])), flush=True)
    fits = all(program["fits"] for program in programs)
    result: dict[str, Any] = {"programs": programs, "fits": fits}
    if options.compilations and (options.largest_batch or not fits):

        def needs(changed: ConfigDict) -> int | None:
            found = [compiled.memory for compiled in compilers.compile_for(changed, hardware, devices)]
            return None if None in found else max(memory.total for memory in found if memory)

        sizes = [report.needed(program) for program in programs]
        used = None if None in sizes else max(size for size in sizes if size is not None)
        search = fit.Search(config, needs, report.usable_memory(hardware), options.compilations)
        if not fits:
            for attempt in search.fixes(used, hardware.count):
                print(_describe(attempt), flush=True)
        best = search.largest_batch(used, hardware.count * config.accum_steps)
        print(f"largest batch: {best.change if best else 'none found that is larger and fits'}")
        result["attempts"] = [vars(attempt) for attempt in search.attempts]
        result["largest_batch"] = vars(best) if best else None
    return result


def _describe(attempt: Any) -> str:
    size = "an unknown size" if attempt.bytes is None else f"{attempt.bytes / _GIB:.4g} GiB"
    return f"with {attempt.change}: {size}, {'fits' if attempt.fits else 'does not fit'}"


def _side_by_side(plans: dict[str, dict[str, Any]]) -> str:
    """The first program of each setting, a column each."""
    from localmim_jax.text import columns

    rows = [["", *plans]]
    first = [plan["programs"][0] for plan in plans.values()]

    def row(name: str, key: Any, needs: str = "seconds") -> None:
        rows.append([name, *(key(program) if program.get(needs) else "-" for program in first)])

    row("GiB", lambda program: f"{program['memory']['total'] / _GIB:.4g}", "memory")
    row("fits", lambda program: "yes" if program["fits"] else "no", "memory")
    row("kernels", lambda program: str(program["kernels"]))
    row("GB", lambda program: f"{program['bytes'] / 1e9:.4g}")
    row("TFLOP", lambda program: f"{program['flops'] / 1e12:.4g}")
    row("floor ms", lambda program: f"{1e3 * program['seconds']['step']:.4g}")
    row("links ms", lambda program: f"{1e3 * program['seconds']['links']:.4g}")
    row("images/s at the floor", lambda program: f"{program['at_the_floor']['images_per_second']:.4g}")
    return columns(rows)
