"""python -m localmim_jax: the commands there are, one a line."""

import importlib

COMMANDS = (
    *("train", "prepare", "evaluate", "knn", "compare"),
    *("visualize", "segment", "detect", "features", "convert", "tables"),
)
ANALYSES = ("gradients", "attention", "layers")


def listing() -> str:
    """Every command with the first line of its help."""
    lines = ["Commands; --help tells more of each:", ""]
    for name in COMMANDS:
        first = (importlib.import_module(f"localmim_jax.commands.{name}").__doc__ or "").partition("\n")[0]
        lines.append(f"  python -m localmim_jax.{name:<10} {first}")
    lines.append(f"  python -m localmim_jax.analysis.<{'|'.join(ANALYSES)}>  What a run has learned, layer by layer.")
    return "\n".join(lines)


if __name__ == "__main__":
    print(listing())
