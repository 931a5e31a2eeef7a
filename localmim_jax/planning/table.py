"""A table of plans: recipes on hardware that is not here, each with the accumulation that makes it fit."""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localmim_jax.planning import compile as compilers
from localmim_jax.planning import floor, report
from localmim_jax.planning.hardware import Hardware
from localmim_jax.recipes.load import load_config
from localmim_jax.recipes.override import override
from localmim_jax.text import markdown

HEADER = ("recipe", "hardware", "batch", "accum_steps", "GiB, usable", "floor", "images/s", "hours", "compiled in")
_TRIES = 4
_PIXEL_BYTES = 1300  # of memory for each pixel of a micro-batch, a guess for the first try: 65 MB for 224 x 224
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Cell:
    """One recipe on one kind of hardware; `folder` holds the plans of a table, one JSON file each."""

    recipe: str
    hardware: Hardware

    def file(self, folder: Path) -> Path:
        recipe = Path(self.recipe).name.replace(".py", "").replace(":", "-")
        return folder / f"{recipe}_{self.hardware.name}.json"

    def plan(self) -> dict[str, Any]:
        """Compiles the recipe's step with the least accumulation, among powers of two, that is found to fit.

        A GPU without bfloat16 takes float16. What does not fit after a few tries is returned as it is.

        Raises:
            ConfigError: the compiler is missing, or the recipe cannot run on these devices.
        """
        config, changes = load_config(self.recipe), []
        if config.model.dtype == "bfloat16" and "bfloat16" not in self.hardware.device.peak:
            changes.append("model.dtype=float16")
        devices = compilers.devices_of(self.hardware)
        per_device = config.batch_size / self.hardware.count
        room = report.usable_memory(self.hardware) / (_PIXEL_BYTES * math.prod(config.image_size))
        accum = first_accumulation(per_device, config.accum_steps, room)
        for _ in range(_TRIES):
            tried = [*changes, f"accum_steps={accum}"] if accum != config.accum_steps else changes
            programs = [
                report.numbers(compiled, self.hardware)
                for compiled in compilers.compile_for(override(copy.deepcopy(config), tried), self.hardware, devices)
            ]
            result = {"recipe": self.recipe, "changes": tried, "programs": programs}
            needed = [report.needed(program) for program in programs]
            if all(program["fits"] for program in programs):
                return result
            accum *= more_accumulation(needed, programs[0]["hardware"]["usable_bytes"])
            if accum > per_device:
                break
        return result


def first_accumulation(images: float, accum_steps: int, room: float) -> int:
    """Micro-batches for the first try: a power of two times the recipe's own.

    Args:
        images: of a device in a batch.
        room: images of a micro-batch that should fit on a device.
    """
    return accum_steps * 2 ** max(0, math.ceil(math.log2(images / accum_steps / room)))


def more_accumulation(needed: Sequence[int | None], usable: int) -> int:
    """The power of two by which micro-batches must shrink at least; memory hardly falls faster than they do."""
    known = [size for size in needed if size is not None]
    ratio = max(known) / usable if len(known) == len(needed) else 2.0
    return 2 ** max(1, math.ceil(math.log2(ratio)))


def rows(plan: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The lines of a plan under HEADER, one for each shape of its batches."""
    for program in plan["programs"]:
        hardware = program["hardware"]
        recipe = Path(plan["recipe"]).stem
        if len(plan["programs"]) > 1:
            recipe += ", {} x {} px".format(*program["image_size"])
        changed = [change for change in plan["changes"] if not change.startswith("accum_steps=")]
        name = hardware["name"] + "".join(f", {change}" for change in changed)
        start = (recipe, name, str(program["batch_size"]), str(program["accum_steps"]))
        usable = f"{hardware['usable_bytes'] / _GIB:.3g}"
        end = f"{program['compile_seconds']:.0f} s"
        if program["memory"] is None:
            yield (*start, f"does not fit, {usable}", "", "", "", end)
            continue
        used = f"{program['memory']['total'] / _GIB:.3g}, {usable}"
        size = used if program["fits"] else f"does not fit: {used}"
        if not program.get("counted", True):
            yield (*start, size, report.NOT_COUNTED, "", "", end)
            continue
        reached = program[f"at_{floor.REACHED}_of_it"]
        speed = f"{program['at_the_floor']['images_per_second']:.0f}, {reached['images_per_second']:.0f}"
        hours = f"{program['at_the_floor']['hours']:.3g}, {reached['hours']:.3g}"
        step = f"{1e3 * program['seconds']['step']:.4g} ms"
        yield (*start, size, step, speed, hours, end)


def table(plans: Sequence[Mapping[str, Any]]) -> str:
    """All rows in Markdown, as docs/scaling.md shows them."""
    return "\n".join(markdown(HEADER, [row for plan in plans for row in rows(plan)]))
