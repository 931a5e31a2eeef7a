"""The runs of `localmim study`: what is pre-trained for how long, how it is evaluated, and the row that results."""

import dataclasses
from pathlib import Path
from typing import Any

from localmim_jax.cli.experiments import Run, State, metrics, top1
from localmim_jax.errors import StorageError
from localmim_jax.files import read_json, write_json
from localmim_jax.recipes.load import load_config
from localmim_jax.recipes.override import flatten

SCRATCH = "scratch"
BACKBONES = ("vit", "swin")
LENGTHS = {"short": 0.15, "medium": 0.6, "long": 2.4}  # epochs of pre-training
CORE = (SCRATCH, "pixels_global_single", "hog_global_single", "pixels_local_multi", "hog_local_multi")
METHODS = (*CORE, "hog_global_multi", "hog_local_single")
PERCENTS = ("1", "10", "100")  # of the labels, to fine-tune on
FEATURES = "features.json"

_BANK = 0.1  # of each class: the memory of k-NN, and the labels of the larger probe
_FEW = 0.01  # of each class: the labels of the smaller probe
_TEST = 0.4  # of each class of the test split: what is classified, 4,000 images
_BATCH = 250

# Of a row: what it is, what it cost, what the features are like, and accuracies in 0..1.
KEYS = ("backbone", "method", "length", "seed")
COSTS = ("epochs", "steps", "gflops", "cpu_seconds", "wall_seconds")
ONLINE = ("rankme", "effective_rank", "uniformity")
PROBES = ("knn", "probe_1", "probe_10")
ACCURACIES = (*PROBES, *(f"finetune_{percent}" for percent in PERCENTS))
COLUMNS = (*KEYS, *COSTS, *ONLINE, *ACCURACIES, "parameters")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One pre-training and everything that is measured of it; a row of the results.

    Attributes:
        backbone: of `BACKBONES`.
        method: of `METHODS`; "scratch" has no pre-training, and a length of "none".
        length: of `LENGTHS`.
        seed: of the initialization, the order, crops, flips and masks.
        root: directory of all runs.
        changes: "key=value" for every run whose recipe has the key.
    """

    backbone: str
    method: str
    length: str
    seed: int
    root: str
    changes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells its row from others, as text."""
        return self.backbone, self.method, self.length, str(self.seed)

    @property
    def place(self) -> Path:
        """The directory of its runs."""
        return Path(self.root) / f"{self.backbone}_{self.method}" / self.length / f"seed{self.seed}"

    @property
    def config(self) -> str:
        """The recipe of the pre-training; of the same encoder where there is none."""
        return f"configs/study.py:{self.backbone}_{'hog_local_multi' if self.method == SCRATCH else self.method}"

    def pretraining(self) -> Run | None:
        """The run; None for "scratch"."""
        if self.method == SCRATCH:
            return None
        epochs = LENGTHS[self.length]
        overrides = (
            f"seed={self.seed}",
            f"num_epochs={epochs}",
            f"schedule.warmup_epochs={epochs / 10:g}",
            f"checkpoint.every_epochs={epochs / 5:g}",
        )
        return self._run(self.config, "pretrain", overrides)

    def finetuning(self, percent: str) -> Run:
        """The fine-tuning on so many percent of the labels."""
        start = self.pretraining()
        begin = () if start is None else (f"checkpoint.init_from={start.workdir}",)
        config = f"configs/study_finetune.py:{self.backbone}_{percent}"
        return self._run(config, f"finetune_{percent}", (f"seed={self.seed}", *begin))

    def like(self) -> Run:
        """A run that is never made, whose recipe describes the encoder and the data."""
        return self._run(self.config, "", ())

    def _run(self, config: str, folder: str, overrides: tuple[str, ...]) -> Run:
        keys = set(flatten(load_config(config))) if self.changes else set()
        own = (change for change in self.changes if change.partition("=")[0] in keys)
        return Run(config, str(self.place / folder), (*own, *overrides))  # what makes it the run it is wins


def cells(
    backbones: tuple[str, ...],
    methods: tuple[str, ...],
    lengths: tuple[str, ...],
    seeds: int,
    root: str,
    changes: tuple[str, ...] = (),
) -> list[Cell]:
    """Every cell in the order in which they are made: length by length, seed by seed."""
    found = {}
    for length in lengths:
        for seed in range(seeds):
            for backbone in backbones:
                for method in methods:
                    own = "none" if method == SCRATCH else length
                    cell = Cell(backbone, method, own, seed, root, changes)
                    found[cell.key] = cell
    return list(found.values())


def measured(cell: Cell) -> dict[str, Any] | None:
    """What `measure` found; None where it is not done yet."""
    file = cell.place / FEATURES
    if not file.is_file():
        return None
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise StorageError(f"{file} cannot be read ({error}): remove it, and it is measured again") from error


def measure(cell: Cell) -> dict[str, Any]:
    """k-NN, probes, ranks and uniformity of the frozen encoder, and a hash of its parameters; written and returned.

    The memory of k-NN and the labels of `probe_10` are the tenth of each class that fine-tuning on 10 % of the labels
    reads, those of `probe_1` the hundredth within it. Ranks and uniformity are of the same tenth, without labels.
    """
    import jax
    import numpy as np

    from localmim_jax.api import create_model, load
    from localmim_jax.data.labeled_part import LabeledPart, chosen
    from localmim_jax.engine.state import state_hash
    from localmim_jax.evals.knn import knn_accuracy
    from localmim_jax.evals.rank import FeatureRank
    from localmim_jax.tasks import inputs
    from localmim_jax.tasks.logistic import fit_probe

    run = cell.pretraining()
    model = load(run.workdir) if run is not None else create_model(cell.like().load(), seed=cell.seed)
    data = inputs.data_config(model.config)
    train = inputs.open_split(data, split="train")
    bank, test = LabeledPart(train, _BANK), LabeledPart(inputs.open_split(data, split="test"), _TEST)
    few = np.isin(bank.indices, chosen(train, _FEW))
    found = {}
    for name, source in (("train", bank), ("test", test)):
        parts = [(out["features"], batch["label"]) for out, batch in model.encode_source(source, batch_size=_BATCH)]
        found[name] = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    (x, y), (test_x, test_y) = found["train"], found["test"]
    rank = FeatureRank()
    rank.update({"feature": x}, {})
    classes, knn = train.num_classes, model.config.eval.knn
    values = {
        **{name: rank.compute()[name] for name in ONLINE},
        "knn": knn_accuracy(x, y, test_x, test_y, knn.k, knn.temperature, classes),
        "probe_1": float((fit_probe(x[few], y[few], classes).predict(test_x) == test_y).mean()),
        "probe_10": float((fit_probe(x, y, classes).predict(test_x) == test_y).mean()),
        "parameters": state_hash(jax.device_put(model.bound.params))[:12],
    }
    cell.place.mkdir(parents=True, exist_ok=True)
    write_json(cell.place / FEATURES, values)
    return values


def row_of(cell: Cell) -> dict[str, str] | None:
    """The row of a cell, as the CSV has it; None where the features are not measured. What is not done yet is ""."""
    values = measured(cell)
    if values is None:
        return None
    row = dict.fromkeys(COLUMNS, "") | dict(zip(KEYS, cell.key, strict=True)) | costs(cell)
    row |= {name: f"{values[name]:.4f}" for name in (*ONLINE, *PROBES)} | {"parameters": values["parameters"]}
    for percent in PERCENTS:
        run = cell.finetuning(percent)
        accuracy = top1(Path(run.workdir)) if run.state() is State.DONE else None
        row[f"finetune_{percent}"] = "" if accuracy is None else f"{accuracy:.4f}"
    return row


def costs(cell: Cell) -> dict[str, str]:
    """Epochs, steps, GFLOPs of the model, CPU seconds of the steps and seconds of the whole pre-training.

    CPU seconds are of the training steps, reading included and compilation left out; wall seconds have everything, and
    on a shared machine the waiting too.
    """
    run = cell.pretraining()
    if run is None:
        return {"epochs": "0", "steps": "0", "gflops": "0", "cpu_seconds": "0", "wall_seconds": "0"}
    reports = [line for line in metrics(Path(run.workdir)) if "progress/epoch" in line]
    last, before, cpu = reports[-1], 0, 0.0
    for report in reports:
        cpu += report["speed/cpu_seconds_per_step"] * (report["step"] - before)
        before = report["step"]
    flops = 1e12 * last["speed/teraflops"] / last["speed/steps_per_second"] * last["step"]
    return {
        "epochs": f"{last['progress/epoch']:.4g}",
        "steps": f"{last['step']}",
        "gflops": f"{flops / 1e9:.6g}",
        "cpu_seconds": f"{cpu:.1f}",
        "wall_seconds": f"{3600 * last['time/device_hours']:.0f}",
    }
