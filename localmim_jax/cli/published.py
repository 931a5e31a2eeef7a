"""What each table and figure compares: its rows, their runs, and the values that the supplement publishes."""

import dataclasses
from collections.abc import Mapping

from localmim_jax.cli.experiments import Run

SCALES = ("full", "small")
BACKBONES = {"full": {"vit": "vit_b", "swin": "swin_b"}, "small": {"vit": "vit", "swin": "swin"}}
NAMES = {"vit": "ViT-B", "swin": "Swin-B"}
SMALL_NAMES = {"ViT-B": "small ViT", "Swin-B": "small Swin"}
SMALL_HEADING = "Small scale, on handwritten digits: tests the code and says nothing about the ranking."


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: its cells before the numbers.
        backbone: "vit" or "swin".
        method: as in `configs.parts.reconstruct`, or "axis=value" of an ablation.
        published: top-1 in %; None where nothing is published.
    """

    label: tuple[str, ...]
    backbone: str
    method: str
    published: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, or the runs behind a figure.

    Attributes:
        title: its heading.
        columns: of the labels.
        rows: see `Row`.
        finetuned: whether the runs are fine-tuned, and so give a number; figures look at the pre-trained ones.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    finetuned: bool = True


def _rows(methods: Mapping[str, tuple[str, ...]], values: Mapping[str, tuple[float | None, ...]]) -> tuple[Row, ...]:
    return tuple(
        Row((NAMES[backbone], *label), backbone, method, value)
        for backbone, published in values.items()
        for (method, label), value in zip(methods.items(), published, strict=True)
    )


_TABLE1 = {
    "global_single": ("global", "single-scale"),
    "global_multi": ("global", "multi-scale"),
    "local_single": ("local", "single-scale"),
    "local_multi": ("local", "multi-scale"),
}
_TABLE2 = {"global_single": ("global",), "global_fusion": ("global with fusion",), "local_multi": ("local",)}
_FIGURE1 = {"global_single": ("Global",), "global_fusion": ("Fusion",), "local_multi": ("Local",)}
_FIGURE2 = {"global_single": ("Global",), "local_multi": ("Local",)}
_UNPUBLISHED = {"vit": (None,) * 3, "swin": (None,) * 3}

TABLES = {
    "table1": Table(
        "Table 1. Decoupling local reconstruction and multi-scale supervision",
        ("backbone", "reconstruction", "supervision"),
        _rows(_TABLE1, {"vit": (83.0, 82.8, 83.0, 83.3), "swin": (83.3, 82.9, 83.6, 83.8)}),
    ),
    "table2": Table(
        "Table 2. Local reconstruction and feature fusion",
        ("backbone", "method"),
        _rows(_TABLE2, {"vit": (83.0, 83.0, 83.3), "swin": (83.3, 83.5, 83.8)}),
    ),
    "figure1": Table(
        "Figure 1. Gradient norm of each layer of the encoder, at the middle of the schedule",
        ("backbone", "method"),
        _rows(_FIGURE1, _UNPUBLISHED),
        finetuned=False,
    ),
    "figure2": Table(
        "Figure 2. How much attention depends on the query, per layer",
        ("backbone", "method"),
        _rows(_FIGURE2, {"vit": (None,) * 2, "swin": (None,) * 2}),
        finetuned=False,
    ),
    "layers": Table(
        "What each layer knows, and how far it looks",
        ("backbone", "method"),
        _rows(_FIGURE2, {"vit": (None,) * 2, "swin": (None,) * 2}),
        finetuned=False,
    ),
    "convergence": Table(
        "Convergence against device hours",
        ("backbone", "method"),
        _rows(_FIGURE2, {"vit": (None,) * 2, "swin": (None,) * 2}),
        finetuned=False,
    ),
}


def ablations(runs: list[str]) -> Table:
    """The sweeps of `configs/ablations.py` or `configs/small.py`, from their "axis=value" arguments."""
    rows = tuple(Row((*run.split("=", 1),), "vit", run) for run in runs)
    return Table("Ablations of the method (ViT)", ("axis", "value"), rows)


def pretraining(row: Row, scale: str, seed: int, root: str) -> Run:
    """The pre-training run of a row. Rows of several tables with one method share it."""
    name = f"{BACKBONES[scale][row.backbone]}_{row.method}"
    workdir = f"{root}/{scale}/{name}/seed{seed}/pretrain"
    if scale == "small":
        config = f"configs/small.py:{name}"
    elif "=" in row.method:
        config = f"configs/ablations.py:{row.method}"
    else:
        config = f"configs/{'table2' if row.method == 'global_fusion' else 'table1'}.py:{name}"
    return Run(config, workdir, (f"seed={seed}",))


def finetuning(row: Row, scale: str, seed: int, root: str) -> Run:
    """The fine-tuning of that run."""
    start = pretraining(row, scale, seed, root)
    config = {
        ("full", "vit"): "configs/vit_b_100ep_finetune.py",
        ("full", "swin"): "configs/swin_b_hog_100ep_finetune.py",
        ("small", "vit"): "configs/small_finetune.py:vit",
        ("small", "swin"): "configs/small_finetune.py:swin",
    }[scale, row.backbone]
    workdir = start.workdir.removesuffix("pretrain") + "finetune"
    return Run(config, workdir, (f"seed={seed}", f"checkpoint.init_from={start.workdir}"))


def runs(table: Table, scale: str, seeds: int, root: str) -> list[Run]:
    """Every run of a table in an order in which they can be made, seed by seed."""
    found = []
    for seed in range(seeds):
        for row in table.rows:
            found.append(pretraining(row, scale, seed, root))
            if table.finetuned:
                found.append(finetuning(row, scale, seed, root))
    return found
