"""Puts weights into a model, strictly in both directions: every array of the source is used or ignored for a stated
reason, every parameter of the model is filled or on the list of new ones. Whatever is wrong is shown at once."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from localmim_jax.convert import interpolate
from localmim_jax.convert.weights import POSITIONS, Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.registry import KINDS
from localmim_jax.params import Tree, flatten, unflatten
from localmim_jax.text import columns

PROBLEMS = ("missing", "mismatched", "unexpected")
_BIAS_TABLE = r"encoder/.*relative_position_bias"
_PATCH_KERNEL = "encoder/patch_embed/kernel"
_CLASS_TOKEN = "encoder/class_token"
HEAD, _HEAD_NORM = "head/kernel", ("norm/scale", "norm/bias")
_READING = ("pool", "head_order")  # how a head comes from the tokens
_RESET = "checkpoint.reset_positions: the model's own"

Grid = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Row:
    """The fate of one parameter of the model, or of one array of the source.

    Attributes:
        status: "loaded", "resized", "initialized" (kept as drawn), "ignored", or one of `PROBLEMS`.
        path: of the parameter, or the name in the source.
        note: shapes or reason.
    """

    status: str
    path: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """Every row of one loading."""

    origin: str
    rows: tuple[Row, ...]

    @property
    def problems(self) -> list[Row]:
        return [row for row in self.rows if row.status in PROBLEMS]

    def table(self) -> str:
        """One line for every group of alike rows; layers' numbers become "*"."""
        lines = [(status, path, f"{count}", note) for (status, path, note), count in self._groups(self.rows).items()]
        return columns([("", "parameter", "count", "note"), *lines])

    def summary(self) -> str:
        """All problems in one line, or how many rows have each status."""
        if self.problems:
            groups = self._groups(self.problems)
            return "; ".join(
                f"{status} {path}{f' ({count})' if count > 1 else ''}{f': {note}' if note else ''}"
                for (status, path, note), count in groups.items()
            )
        counts: dict[str, int] = defaultdict(int)
        for row in self.rows:
            counts[row.status] += 1
        return ", ".join(f"{count} {status}" for status, count in counts.items())

    @staticmethod
    def _groups(rows: Sequence[Row]) -> dict[tuple[str, str, str], int]:
        groups: dict[tuple[str, str, str], int] = defaultdict(int)
        for row in rows:
            pattern = re.sub(r"(?<=[/.])\d+(?=[/.]|$)", "*", row.path)
            groups[row.status, pattern if len(pattern) <= 100 else pattern[:97] + "...", row.note] += 1
        return dict(groups)


def transfer(
    weights: Weights,
    params: Tree,
    info: ModelInfo,
    fresh: Sequence[str] = (),
    method: str = "bicubic",
    reset_positions: bool = False,
) -> tuple[Tree, Report]:
    """The model's parameters with everything taken over that belongs there.

    Parts outside the encoder go over only between models of one kind (pre-training, classifier); otherwise the
    source's are ignored and the model's stay as drawn. A head for other classes stays as drawn, and so does its norm
    where the two heads read the tokens otherwise. Positions and bias tables are resized to the model's image size; the
    patch projection to its channels.

    Args:
        weights: the source.
        params: the model's own, freshly drawn, as host arrays.
        info: the model, see `ModelConfig.describe`.
        fresh: patterns of encoder paths that the source may lack (relative bias tables of the segmentation ViT).
        method: how positions are interpolated, "bicubic" or "bilinear".
        reset_positions: the model's own positions stay as they are. The class token's learned position, which is no
            place in the image, is added to the class token.

    Returns:
        (params, report). Where the report has problems, params is not to be used: see `check`.
    """
    rows = [Row("ignored", name, reason) for name, reason in weights.ignored.items()]
    rows += [Row("unexpected", name, reason) for name, reason in weights.unexpected.items()]
    same_kind = weights.info.kind == info.kind != "encoder"
    wanted, filled = flatten(params), {}
    contradictions, head = _contradictions(weights, info), weights.arrays.get(HEAD)
    other_classes = head is not None and HEAD in wanted and head.shape != wanted[HEAD].shape
    excused = _READING if other_classes else ()
    other_reading = [f"{key} is {reason}" for key, reason in contradictions if key in excused]
    rows += [Row("mismatched", key, reason) for key, reason in contradictions if key not in excused]
    if None not in (weights.info.epsilon, info.epsilon) and weights.info.epsilon != info.epsilon:
        note = f"of layer norms: {weights.info.epsilon:g} in the source, {info.epsilon:g} in the model"
        rows.append(Row("ignored", "epsilon", note))
    grids = _grid(weights.info, weights.arrays), _grid(info, wanted)
    if reset_positions:
        weights = _without_positions(weights, wanted)
        rows += [] if POSITIONS in wanted else [Row("ignored", POSITIONS, _RESET)]
    for path, own in wanted.items():
        if not same_kind and not path.startswith("encoder/"):
            filled[path], row = own, Row("initialized", path, "new")
        elif other_reading and path in _HEAD_NORM:
            filled[path], row = own, Row("initialized", path, f"new: {', '.join(other_reading)}")
        elif reset_positions and path == POSITIONS:
            filled[path], row = own, Row("initialized", path, _RESET)
        elif path not in weights.arrays:
            new = any(re.fullmatch(pattern, path) for pattern in fresh)
            filled[path] = own
            row = Row("initialized", path, "new") if new else Row("missing", path, f"of shape {list(own.shape)}")
        elif path == POSITIONS:
            filled[path], row = _positions(weights.arrays[path], own, grids, method)
        else:
            same_size = weights.info.image_size == info.image_size
            filled[path], row = _fill(path, weights.arrays[path], own, same_size)
        rows.append(row)
    for path in weights.arrays:
        if path not in wanted or not (same_kind or path.startswith("encoder/")):
            rows.append(_left_over(path, weights, same_kind))
    order = ("loaded", "resized", "initialized", "ignored", *PROBLEMS)
    rows.sort(key=lambda row: order.index(row.status))
    return unflatten(filled), Report(weights.origin, tuple(rows))


def check(report: Report) -> None:
    """Raises ConfigError, naming every problem in one line, if there is any."""
    if report.problems:
        raise ConfigError(f"{report.origin} does not fit this model: {report.summary()}")


def _contradictions(weights: Weights, info: ModelInfo) -> list[tuple[str, str]]:
    """What the two descriptions say differently, where both know anything and arrays' shapes would not show it."""
    theirs = weights.info
    if theirs.family != info.family:
        variants = ", ".join(KINDS[theirs.family].variants)
        return [
            (
                "backbone",
                f"the source is a {theirs.family}, the model a {info.family}: take one of model.variant {variants}",
            )
        ]
    keys = ["num_heads"]
    if theirs.kind == info.kind == "classifier":
        keys += ["pool", "head_order"]
    values = [(key, getattr(theirs, key), getattr(info, key)) for key in keys]
    return [
        (key, f"{source} in the source, {own} in the model")
        for key, source, own in values
        if None not in (source, own) and source != own and key not in weights.assumed
    ]


def _without_positions(weights: Weights, wanted: Mapping[str, np.ndarray]) -> Weights:
    """The source without its positions, and the class token with its own.

    Raises:
        ConfigError: it has none.
    """
    if POSITIONS not in weights.arrays:
        raise ConfigError(f"{weights.origin} has no positions to reset: leave checkpoint.reset_positions out")
    arrays, table = dict(weights.arrays), weights.arrays[POSITIONS]
    del arrays[POSITIONS]
    has_row = KINDS[weights.info.family].class_token_has_position
    if has_row and _CLASS_TOKEN in arrays and arrays[_CLASS_TOKEN].shape == table.shape[1:]:
        arrays[_CLASS_TOKEN] = arrays[_CLASS_TOKEN] + table[0]
    return dataclasses.replace(weights, arrays=arrays)


def _fill(path: str, source: np.ndarray, own: np.ndarray, same_size: bool) -> tuple[np.ndarray, Row]:
    """The value of one parameter and its row; the parameter's own value where the source's does not fit."""
    if source.shape == own.shape:
        return source, Row("loaded", path)
    change = f"{list(source.shape)} -> {list(own.shape)}"
    if re.fullmatch(_BIAS_TABLE, path) and source.shape[1:] == own.shape[1:]:
        old, new = interpolate.window_of(len(source)), interpolate.window_of(len(own))
        if old is None or new is None:
            return own, Row("mismatched", path, f"{change}: of no window")
        if same_size:
            note = f"window {old} in the source, {new} in the model, for the same image size"
            return own, Row("mismatched", path, note)
        return interpolate.resize_bias_table(source, old, new), Row("resized", path, f"{change}, bicubic")
    if path == _PATCH_KERNEL and source.shape[:2] + source.shape[3:] == own.shape[:2] + own.shape[3:]:
        return interpolate.resize_channels(source, own.shape[2]), Row("resized", path, f"{change}, color channels")
    if path.startswith("head/") or "_head/classifier/" in path:  # of a classifier; of segmentation's two heads
        return own, Row("initialized", path, f"new: the source's has shape {list(source.shape)}")
    return own, Row("mismatched", path, f"{list(source.shape)} in the source, {list(own.shape)} in the model")


def _positions(
    source: np.ndarray, own: np.ndarray, grids: tuple[Grid | None, Grid | None], method: str
) -> tuple[np.ndarray, Row]:
    """The source's positions on the model's grid, and their row."""
    old, new = grids
    prefix = None if new is None else len(own) - new[0] * new[1]  # rows of tokens without a place in the image
    fits = old is not None and prefix is not None and len(source) == prefix + old[0] * old[1]
    if old is None or new is None or not fits or source.shape[1:] != own.shape[1:]:
        return own, Row("mismatched", POSITIONS, f"{list(source.shape)} in the source, {list(own.shape)} in the model")
    if old == new:
        return source, Row("loaded", POSITIONS)
    note = f"{old[0]}x{old[1]} -> {new[0]}x{new[1]} patches, {method}"
    return interpolate.resize_positions(source, old, new, method), Row("resized", POSITIONS, note)


def _left_over(path: str, weights: Weights, same_kind: bool) -> Row:
    """The row of an array that the model has no parameter for."""
    if path == POSITIONS:
        if has_fixed_positions(weights):
            return Row("ignored", path, "fixed sine-cosine positions, which the model computes")
        return Row(
            "mismatched",
            path,
            "learned in the source, fixed sine-cosine in the model: keep them with model.position=learned, or drop "
            "them with checkpoint.reset_positions=true",
        )
    if same_kind or path.startswith("encoder/"):
        return Row("unexpected", path, "no part of this model has such a name")
    return Row("ignored", path, "only the encoder is taken over")


def has_fixed_positions(weights: Weights) -> bool:
    """Whether the source's positions are the sine-cosine table of its grid, or it has none."""
    table, grid = weights.arrays.get(POSITIONS), _grid(weights.info, weights.arrays)
    if table is None:
        return True
    if grid is None or table.shape[1] % 4:
        return False
    fixed = interpolate.fixed_positions(grid, table.shape[1])
    return fixed.shape == table.shape and np.allclose(table, fixed, atol=1e-5)


def _grid(info: ModelInfo, arrays: Mapping[str, np.ndarray]) -> Grid | None:
    """(rows, columns) of a ViT's patches: from the image size, or else the square one that its positions fill."""
    kernel, positions = arrays.get(_PATCH_KERNEL), arrays.get(POSITIONS)
    if info.image_size is not None and kernel is not None and kernel.ndim == 4:
        return info.image_size[0] // kernel.shape[0], info.image_size[1] // kernel.shape[1]
    for prefix in (1, 0):  # rows of a class token, or none
        places = 0 if positions is None else len(positions) - prefix
        if places > 0 and (side := math.isqrt(places)) ** 2 == places:
            return side, side
    return None
