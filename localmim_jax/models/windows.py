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
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int, Int32, Num

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

    def pack(self, tokens: Num[Array, "b n c"], fill: Num[Array, " c"]) -> Num[Array, "1 b g {self.window**2} c"]:
        """Tokens (row-major) to windows, padded with `fill`."""
        (rows, columns), (padded_rows, padded_columns), w = self.grid, self._padded, self.window
        x = rearrange(tokens, "b (y x) c -> b y x c", y=rows)
        if (rows, columns) != (padded_rows, padded_columns):
            inside = np.zeros((1, padded_rows, padded_columns, 1), bool)
            inside[:, :rows, :columns] = True
            x = jnp.pad(x, ((0, 0), (0, padded_rows - rows), (0, padded_columns - columns), (0, 0)))
            x = jnp.where(inside, x, fill.reshape(1, 1, 1, -1))
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), axis=(1, 2))
        return rearrange(x, "b (y i) (x j) c -> 1 b (y x) (i j) c", i=w, j=w)

    def unpack(
        self, groups: Float[Array, "1 b g {self.window**2} c"]
    ) -> Float[Array, "b {self.grid[0]*self.grid[1]} c"]:
        """Windows to tokens, row-major; what lies in the padding is dropped."""
        (rows, columns), w = self.grid, self.window
        x = rearrange(groups, "1 b (y x) (i j) c -> b (y i) (x j) c", y=self._padded[0] // w, i=w)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), axis=(1, 2))
        return rearrange(x[:, :rows, :columns], "b y x c -> b (y x) c")

    def bias(
        self, table: Float[Array, "{(2*self.window-1)**2} heads"]
    ) -> Float32[Array, "1 1 g heads {self.window**2} {self.window**2}"]:
        """The bias to add to the logits, query by key; of one window for all of them where nothing is shifted."""
        bias = window_bias(table, self.window)[None]
        if self.shift:
            region = jnp.asarray(self._region()[:, None])
            bias = jnp.where(region[:, :, :, None] == region[:, :, None, :], bias, _NEVER)
        return bias[None, None]

    def places(self) -> tuple[Int32[np.ndarray, "g s"], Int32[np.ndarray, "g s 2"]]:
        """Where the tokens of each window lie: (group, coordinates), see `blocks.Measure`; -1 for padding."""
        rows, columns = np.meshgrid(*map(np.arange, self.grid), indexing="ij")
        with jax.ensure_compile_time_eval():
            tokens = jnp.asarray(np.stack([rows.ravel(), columns.ravel()], axis=-1)[None])
            coordinates = np.asarray(self.pack(tokens, jnp.full(2, -1, tokens.dtype)), np.int32)[0, 0]
        region = self._region() if self.shift else np.zeros(coordinates.shape[:2], np.int32)
        return np.where(coordinates[..., 0] < 0, np.int32(-1), region), coordinates

    def _region(self) -> Int32[np.ndarray, "g s"]:
        """Which part of the rolled grid each place of each window lies in."""
        rows, columns = (self._regions(size) for size in self._padded)
        return (3 * rows[:, None, :, None] + columns[None, :, None, :]).reshape(-1, self.window**2)

    def _regions(self, size: int) -> Int32[np.ndarray, "g s"]:
        """Which part of the grid each place of each window lies in after rolling, along one axis."""
        place = np.arange(size)
        region = (place >= size - self.window).astype(np.int32) + (place >= size - self.shift)
        return region.reshape(-1, self.window)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseWindows:
    """The visible tokens of m masks, in g groups of s places. Mask i serves images i * b / m to (i + 1) * b / m.

    Attributes:
        slots: the token at every place, n where there is none; None where groups are the tokens as they stand (one
            group of n).
        places: the place of every token; None likewise.
        window: which window each place's token belongs to, -1 where there is none.
        position: one-hot place within the window, which has w places.
    """

    slots: Int32[Array, "m g*s"] | None
    places: Int32[Array, "m n"] | None
    window: Int32[Array, "m g s"]
    position: Float32[Array, "m g s w"]

    def pack(self, tokens: Float[Array, "b n c"], fill: Float[Array, " c"]) -> Float[Array, "m r g s c"]:
        """Tokens to groups, zeros where there is no token. `fill` is for padded grids only."""
        m, g, _ = self.window.shape
        x = rearrange(tokens, "(m r) n c -> m r n c", m=m)
        if self.slots is not None:
            x = move(x, self.slots, self.places)
        return rearrange(x, "m r (g s) c -> m r g s c", g=g)

    def unpack(self, groups: Float[Array, "m r g s c"]) -> Float[Array, "m*r n c"]:
        """Groups to tokens."""
        x = rearrange(groups, "m r g s c -> m r (g s) c")
        if self.slots is not None:
            x = move(x, self.places, self.slots)
        return rearrange(x, "m r n c -> (m r) n c")

    def bias(self, table: Float[Array, "rows heads"]) -> Float32[Array, "m 1 g heads s s"]:
        """The bias to add to the logits, query by key.

        A product of one-hot matrices rather than a gather, whose gradient would be a slow scatter of colliding adds.
        """
        pairs = window_bias(table, math.isqrt(self.position.shape[-1]))
        exact = jax.lax.Precision.HIGHEST
        rows = jnp.einsum("mgqa,hab->mghqb", self.position, pairs, precision=exact)
        bias = jnp.einsum("mghqb,mgkb->mghqk", rows, self.position, precision=exact)
        same = self.window[:, :, None, :, None] == self.window[:, :, None, None, :]
        return jnp.where(same, bias, _NEVER)[:, None]


Layout = DenseWindows | SparseWindows


def window_bias(
    table: Float[Array, "{(2*window-1)**2} heads"], window: int
) -> Float32[Array, "heads {window**2} {window**2}"]:
    """The bias of every pair of a window's places, query by key."""
    return rearrange(table.astype(jnp.float32)[relative_position_index(window)], "q k heads -> heads q k")


def sparse_windows(
    keep: Int[Array, "m k"], unit_grid: tuple[int, int], side: int, window: int, shift: int, packed: bool
) -> SparseWindows:
    """The layout of the tokens of visible mask units: unit by unit, row-major inside a unit.

    Args:
        keep: the visible units of each mask, row-major on the unit grid.
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

    def at_slots(values: Int[Array, "m n"]) -> Int[Array, "m g s"]:
        values = jnp.concatenate([values, jnp.full((m, 1), -1, values.dtype)], axis=1)
        return rearrange(jnp.take_along_axis(values, slots, axis=1), "m (g s) -> m g s", g=number)

    return SparseWindows(slots, places, at_slots(ids), _one_hot(at_slots(place), window))


def token_coordinates(
    keep: Int[Array, "m k"], unit_columns: int, side: int
) -> tuple[Int32[Array, "m k*{side**2}"], Int32[Array, "m k*{side**2}"]]:
    """(row, column) on the whole grid of every token of the units `keep`."""
    m, k = keep.shape
    inner = jnp.arange(side, dtype=jnp.int32)
    rows = (keep // unit_columns * side)[:, :, None, None] + inner[None, None, :, None]
    columns = (keep % unit_columns * side)[:, :, None, None] + inner[None, None, None, :]
    shape = (m, k, side, side)
    return jnp.broadcast_to(rows, shape).reshape(m, -1), jnp.broadcast_to(columns, shape).reshape(m, -1)


def _one_hot(place: Int[Array, "*n"], window: int) -> Float32[Array, "*n {window**2}"]:
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


def pack_windows(
    ids: Int[Array, " n"], num_windows: int, num_visible: int, number: int, size: int
) -> Int32[Array, " n"]:
    """First-fit-decreasing: windows, largest first, each into the first group with room for it.

    Args:
        ids: the window of each token, below num_windows.
        num_windows: windows on the grid.
        num_visible: at least the number of windows that have a token.
        number: number of groups, at least what `num_groups` says or num_visible.
        size: places in a group, at least the tokens of any window.

    Returns:
        The place of every token: distinct, below number * size; a window's tokens lie in one group.
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


def attend_in_groups(
    q: Float[Array, "m r g s heads d"],
    k: Float[Array, "m r g s heads d"],
    v: Float[Array, "m r g s heads d"],
    bias: Float32[Array, "#m #r #g heads s s"],
) -> Float[Array, "m r g s heads*d"]:
    """softmax(q k / sqrt(d) + bias) v within groups, in the dtype of v. Logits and softmax are float32.

    Args:
        q, k, v: queries, keys and values.
        bias: added to the logits, query by key.
    """
    weights = attention_weights(q, k, bias).astype(v.dtype)
    out = jnp.einsum("mrghqk,mrgkhd->mrgqhd", weights, v)
    return rearrange(out, "m r g s heads d -> m r g s (heads d)")
