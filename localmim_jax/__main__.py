"""python -m localmim_jax: the commands there are, one a line."""

import importlib
import sys
from collections.abc import Sequence

from localmim_jax.recipes import hints

COMMANDS = (
    *("train", "prepare", "evaluate", "knn", "compare"),
    *("visualize", "segment", "detect", "features", "convert", "tables"),
)
ANALYSES = ("gradients", "attention", "layers")
BENCHES = ("step_time", "input_speed", "variants", "attention", "hog", "sparse_swin", "gpu_hours")


def listing() -> str:
    """Every command with the first line of its help."""
    lines = ["Commands; --help tells more of each:", ""]
    for name in COMMANDS:
        first = (importlib.import_module(f"localmim_jax.cli.{name}").__doc__ or "").partition("\n")[0]
        lines.append(f"  python -m localmim_jax.{name:<10} {first}")
    lines.append(f"  python -m localmim_jax.analysis.<{'|'.join(ANALYSES)}>  What a run has learned, layer by layer.")
    lines.append(f"  python -m localmim_jax.bench.<{'|'.join(BENCHES)}>  How fast it is on this machine.")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Prints the listing; a command's name belongs behind a dot, and whoever gives it as an argument is told so."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing())
        return
    known = (*COMMANDS, *(f"analysis.{name}" for name in ANALYSES), *(f"bench.{name}" for name in BENCHES))
    near = hints.did_you_mean(arguments[0], known, "python -m localmim_jax.")
    hint = near or "; python -m localmim_jax lists the commands"
    print(f"localmim_jax: left-over argument {arguments[0]!r}{hint}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
