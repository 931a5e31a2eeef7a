"""Plan many recipes on many kinds of hardware: the table of docs/scaling.md.

    localmim plan_table --plans=docs/plans                     # prints the table of the plans that are there
    localmim plan_table --plans=docs/plans --run               # compiles those that are missing, one file each
    localmim plan_table --plans=docs/plans --run --recipes=vit_b_100ep --hardware=h100x8,v5e-16

Each plan is that of `localmim plan`, with the least accumulation of gradients that fits. Compiling takes minutes for
each plan. An interrupted command continues where it stopped.
"""

from pathlib import Path

from absl import flags

from localmim_jax.errors import ConfigError
from localmim_jax.files import read_json, write_json
from localmim_jax.recipes.load import load_config

RECIPES = (
    *("vit_b_100ep", "vit_l_800ep", "swin_b_hog_100ep", "swin_l_hog_800ep"),
    *("vit_b_1600ep_finetune", "vit_l_800ep_finetune", "swin_b_hog_400ep_finetune", "swin_l_hog_800ep_finetune"),
    *("vit_b_1600ep_ade20k", "swin_b_hog_400ep_ade20k", "swin_b_hog_400ep_coco"),
)
HARDWARE = ("v100", "a100x8", "h100x8", "v5e-16", "v5p-8")


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("plans", None, "directory of the plans, one JSON file each", flag_values=values)
    flags.DEFINE_list("recipes", None, "recipes to plan; those of docs/scaling.md by default", flag_values=values)
    flags.DEFINE_list("hardware", list(HARDWARE), "hardware to plan them on", flag_values=values)
    flags.DEFINE_bool("run", False, "compile the plans that are missing", flag_values=values)


def main(options: flags.FlagValues) -> None:
    if not options.plans:
        raise ConfigError("no --plans given; for example --plans=docs/plans")
    import jax

    from localmim_jax.planning import compile as compilers
    from localmim_jax.planning import hardware as hardwares
    from localmim_jax.planning import table

    kinds = [hardwares.parse(name) for name in options.hardware]
    recipes = options.recipes or RECIPES
    cells = [table.Cell(recipe, kind) for recipe in recipes for kind in kinds]
    for recipe in recipes:
        load_config(recipe)
    folder = Path(options.plans)
    missing = [cell for cell in cells if not cell.file(folder).is_file()]
    if options.run:
        for kind in {cell.hardware.device.platform: cell.hardware for cell in missing}.values():
            compilers.require_compiler(kind)
        jax.config.update("jax_platforms", "cpu")  # nothing runs on a device that may be here
        folder.mkdir(parents=True, exist_ok=True)
        for cell in missing:
            write_json(cell.file(folder), cell.plan())
            jax.clear_caches()
            print(f"{cell.file(folder)} is written", flush=True)
        missing = []
    print(table.table([read_json(cell.file(folder)) for cell in cells if cell.file(folder).is_file()]))
    if missing:
        print(f"\nmissing, --run makes them: {', '.join(cell.file(folder).stem for cell in missing)}")
