"""Which tokens of a Swin stage attend to one another, dense and sparse.

Both kinds of layout offer the same three steps to an attention layer: `pack` tokens into groups, the `bias` of every
pair within a group, and `unpack`. A dense layout's groups are the windows of the whole grid. A sparse layout's groups
hold visible tokens of several windows, and a token still attends to the visible tokens of its own window alone.

Two tokens share a shifted window exactly where (row + window - shift) // window and the same of their columns agree:
rolling the grid and masking what wrapped around, the usual formulation, is this partition.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.models.blocks import attention_weights
from localmim_jax.models.positions import relative_position_index
from localmim_jax.ops.move import move

_NEVER = -1e30  # a logit whose softmax weight is exactly 0 in float32


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DenseWindows:
    """Every window of a whole grid, zero-padded at the bottom and right to a multiple of the window.

    Padded positions take part in attention as zeros before the qkv projection, so as its bias (docs/method.md).

    Attributes:
        grid: (rows, columns) of tokens.
        window: side of a window.
        shift: rows and columns by which the windows are shifted; 0 for none.
    """

    grid: tuple[int, int]
    window: int
    shift: int

    @property
    def _padded(self) -> tuple[int, int]:
        w = self.window
        return -(-self.grid[0] // w) * w, -(-self.grid[1] // w) * w

    def pack(self, tokens: jax.Array, fill: jax.Array) -> jax.Array:
        """[b, rows * columns, c], padded with fill [c] -> [1, b, windows, window^2, c]."""
        b, _, c = tokens.shape
        (rows, columns), (padded_rows, padded_columns), w = self.grid, self._padded, self.window
        x = tokens.reshape(b, rows, columns, c)
        if (rows, columns) != (padded_rows, padded_columns):
            inside = np.zeros((1, padded_rows, padded_columns, 1), bool)
            inside[:, :rows, :columns] = True
            x = jnp.pad(x, ((0, 0), (0, padded_rows - rows), (0, padded_columns - columns), (0, 0)))
            x = jnp.where(inside, x, fill.reshape(1, 1, 1, c))
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), axis=(1, 2))
        x = x.reshape(b, padded_rows // w, w, padded_columns // w, w, c).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(1, b, -1, w * w, c)

    def unpack(self, groups: jax.Array) -> jax.Array:
        """[1, b, windows, window^2, c] -> [b, rows * columns, c]."""
        _, b, _, _, c = groups.shape
        (rows, columns), (padded_rows, padded_columns), w = self.grid, self._padded, self.window
        x = groups.reshape(b, padded_rows // w, padded_columns // w, w, w, c).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, padded_rows, padded_columns, c)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), axis=(1, 2))
        return x[:, :rows, :columns].reshape(b, rows * columns, c)

    def bias(self, table: jax.Array) -> jax.Array:
        """[(2 window - 1)^2, heads] -> float32 [1, 1, windows or 1, heads, window^2, window^2] to add to the logits."""
        bias = window_bias(table, self.window)[None]
        if self.shift:
            region = jnp.asarray(self._region()[:, None])
            bias = jnp.where(region[:, :, :, None] == region[:, :, None, :], bias, _NEVER)
        return bias[None, None]

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the tokens of each group lie: (group, coordinates), for whoever reads attention maps.

        Returns:
            int32 [windows, window^2], places with equal numbers attend to one another, -1 for padding; and
            int32 [windows, window^2, 2], (row, column) on the grid, -1 for padding.
        """
        rows, columns = np.meshgrid(*map(np.arange, self.grid), indexing="ij")
        with jax.ensure_compile_time_eval():
            tokens = jnp.asarray(np.stack([rows.ravel(), columns.ravel()], axis=-1)[None])
            coordinates = np.asarray(self.pack(tokens, jnp.full(2, -1, tokens.dtype)), np.int32)[0, 0]
        region = self._region() if self.shift else np.zeros(coordinates.shape[:2], np.int32)
        return np.where(coordinates[..., 0] < 0, np.int32(-1), region), coordinates

    def _region(self) -> np.ndarray:
        """Which part of the rolled grid each place of each window lies in: int32 [windows, window^2]."""
        rows, columns = (self._regions(size) for size in self._padded)
        return (3 * rows[:, None, :, None] + columns[None, :, None, :]).reshape(-1, self.window**2)

    def _regions(self, size: int) -> np.ndarray:
        """Which part of the grid each place of each window lies in after rolling, along one axis: [windows, window]."""
        place = np.arange(size)
        region = (place >= size - self.window).astype(np.int32) + (place >= size - self.shift)
        return region.reshape(-1, self.window)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseWindows:
    """The visible tokens of m masks, in groups of s places. Mask i serves images i * b / m to (i + 1) * b / m.

    Attributes:
        slots: int32 [m, g * s], the token at every place, n where there is none; None where groups are the tokens as
            they stand (one group of n).
        places: int32 [m, n], the place of every token; None likewise.
        window: int32 [m, g, s], which window each place's token belongs to, -1 where there is none.
        position: float32 [m, g, s, window^2], one-hot place within the window.
    """

    slots: jax.Array | None
    places: jax.Array | None
    window: jax.Array
    position: jax.Array

    def pack(self, tokens: jax.Array, fill: jax.Array) -> jax.Array:
        """[b, n, c] -> [m, b / m, g, s, c]; zeros where there is no token. `fill` is for padded grids only."""
        b, n, c = tokens.shape
        m, g, s = self.window.shape
        x = tokens.reshape(m, b // m, n, c)
        if self.slots is not None:
            x = move(x, self.slots, self.places)
        return x.reshape(m, b // m, g, s, c)

    def unpack(self, groups: jax.Array) -> jax.Array:
        """[m, b / m, g, s, c] -> [b, n, c]."""
        m, r, g, s, c = groups.shape
        x = groups.reshape(m, r, g * s, c)
        if self.slots is not None:
            x = move(x, self.places, self.slots)
        return x.reshape(m * r, -1, c)

    def bias(self, table: jax.Array) -> jax.Array:
        """[(2 window - 1)^2, heads] -> float32 [m, 1, g, heads, s, s] to add to the logits.

        A product of one-hot matrices rather than a gather, whose gradient would be a slow scatter of colliding adds.
        """
        pairs = window_bias(table, math.isqrt(self.position.shape[-1]))
        exact = jax.lax.Precision.HIGHEST
        rows = jnp.einsum("mgqa,hab->mghqb", self.position, pairs, precision=exact)
        bias = jnp.einsum("mghqb,mgkb->mghqk", rows, self.position, precision=exact)
        same = self.window[:, :, None, :, None] == self.window[:, :, None, None, :]
        return jnp.where(same, bias, _NEVER)[:, None]


Layout = DenseWindows | SparseWindows


def window_bias(table: jax.Array, window: int) -> jax.Array:
    """[(2 window - 1)^2, heads] -> float32 [heads, window^2, window^2], query by key."""
    return table.astype(jnp.float32)[relative_position_index(window)].transpose(2, 0, 1)


def sparse_windows(
    keep: jax.Array, unit_grid: tuple[int, int], side: int, window: int, shift: int, packed: bool
) -> SparseWindows:
    """The layout of the tokens of visible mask units: unit by unit, row-major inside a unit.

    Args:
        keep: int32 [m, k], the visible units of each mask, row-major on the unit grid.
        unit_grid: (rows, columns) of mask units.
        side: tokens along a side of a unit.
        window, shift: as in `DenseWindows`.
        packed: whether windows are packed into groups of window^2 places; else, and where one such group is enough
            anyway, all tokens form one group as they stand.
    """
    row, column = token_coordinates(keep, unit_grid[1], side)
    offset = window - shift if shift else 0
    row, column = row + offset, column + offset
    window_rows, window_columns = (-(-(size * side + offset) // window) for size in unit_grid)
    ids = (row // window) * window_columns + column // window
    place = (row % window) * window + column % window
    (m, k), n, size = keep.shape, ids.shape[1], window**2
    num_windows = window_rows * window_columns
    num_visible = min(num_windows, k * (-(-(side - 1) // window) + 1) ** 2)
    number = min(num_groups(n, window), num_visible)
    if not packed or number == 1:
        return SparseWindows(None, None, ids[:, None], _one_hot(place, window)[:, None])

    places = jax.vmap(lambda ids: pack_windows(ids, num_windows, num_visible, number, size))(ids)
    tokens, slots = jnp.arange(n, dtype=jnp.int32), jnp.full((m, number * size), n, jnp.int32)
    slots = jax.vmap(lambda slots, places: slots.at[places].set(tokens, unique_indices=True))(slots, places)

    def at_slots(values: jax.Array) -> jax.Array:
        values = jnp.concatenate([values, jnp.full((m, 1), -1, values.dtype)], axis=1)
        return jnp.take_along_axis(values, slots, axis=1).reshape(m, number, size)

    return SparseWindows(slots, places, at_slots(ids), _one_hot(at_slots(place), window))


def token_coordinates(keep: jax.Array, unit_columns: int, side: int) -> tuple[jax.Array, jax.Array]:
    """(row, column) on the whole grid of every token of the units [m, k]: int32 [m, k * side^2] each."""
    m, k = keep.shape
    inner = jnp.arange(side, dtype=jnp.int32)
    rows = (keep // unit_columns * side)[:, :, None, None] + inner[None, None, :, None]
    columns = (keep % unit_columns * side)[:, :, None, None] + inner[None, None, None, :]
    shape = (m, k, side, side)
    return jnp.broadcast_to(rows, shape).reshape(m, -1), jnp.broadcast_to(columns, shape).reshape(m, -1)


def _one_hot(place: jax.Array, window: int) -> jax.Array:
    return jax.nn.one_hot(place, window**2, dtype=jnp.float32)  # zeros for -1


def num_groups(num_tokens: int, window: int) -> int:
    """How many groups of window^2 places first-fit-decreasing needs at most, whatever the mask.

    Let the last group be opened for a window with a visible tokens. Only windows of a tokens or more were placed by
    then, and no earlier group has room for a more, so each holds at least f = max(window^2 - a + 1, a) tokens: the
    tokens number at least (groups - 1) * f + a. The bound is the most groups that this allows for any a.
    """
    area = window**2
    most = min(area, num_tokens)
    return max(1 + (num_tokens - a) // max(area - a + 1, a) for a in range(1, most + 1))


def pack_windows(ids: jax.Array, num_windows: int, num_visible: int, number: int, size: int) -> jax.Array:
    """First-fit-decreasing: windows, largest first, each into the first group with room for it.

    Args:
        ids: int32 [n], the window of each token, below num_windows.
        num_windows: on the grid.
        num_visible: at least the number of windows that have a token.
        number: of groups, at least what `num_groups` says or num_visible.
        size: places of a group, at least the tokens of any window.

    Returns:
        int32 [n], the place of every token: distinct, below number * size; a window's tokens lie in one group.
    """
    member = (ids[:, None] == jnp.arange(num_windows)[None]).astype(jnp.int32)
    count = member.sum(axis=0)
    index_in_window = jnp.take_along_axis(jnp.cumsum(member, axis=0), ids[:, None], axis=1)[:, 0] - 1
    order = jnp.argsort(-count, stable=True)[:num_visible]

    def place(fill: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        group = jnp.argmax(fill + tokens <= size)
        return fill.at[group].add(tokens), group * size + fill[group]

    _, starts = jax.lax.scan(place, jnp.zeros(number, jnp.int32), count[order])
    start = jnp.zeros(num_windows, jnp.int32).at[order].set(starts.astype(jnp.int32), unique_indices=True)
    return start[ids] + index_in_window


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    """softmax(q k / sqrt(width) + bias) v within groups.

    Args:
        q, k, v: [m, r, g, s, heads, width].
        bias: float32, broadcastable to [m, r, g, heads, s, s], query by key.

    Returns:
        [m, r, g, s, heads * width] in the dtype of v; logits and softmax are float32.
    """
    weights = attention_weights(q, k, bias).astype(v.dtype)
    out = jnp.einsum("mrghqk,mrgkhd->mrgqhd", weights, v)
    return out.reshape(*out.shape[:-2], -1)
