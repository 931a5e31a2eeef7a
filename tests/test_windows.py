"""Sparse attention keeps every token and equals dense attention among the visible tokens of a window."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmim_jax import params as trees
from localmim_jax.method.masking import mask_from_noise, to_grid
from localmim_jax.models import windows
from localmim_jax.models.positions import relative_position_index
from localmim_jax.models.swin import Swin
from tests.defaults import swin_config


def same_window(grid, window, shift):
    """[n, n] of a grid's places, as the textbook has it: pad, roll, cut, forbid pairs that rolling joined."""
    padded = [-(-size // window) * window for size in grid]
    labels = []
    for size, full in zip(grid, padded, strict=True):
        rolled = np.roll(np.arange(full), -shift)
        label = np.empty(full, int)
        for place, original in enumerate(rolled):
            wrapped = shift > 0 and original < shift
            label[original] = 2 * (place // window) + wrapped
        labels.append(label[:size])
    rows, columns = (label.reshape(-1) for label in np.meshgrid(*labels, indexing="ij"))
    return (rows[:, None] == rows[None]) & (columns[:, None] == columns[None])


def visible_places(keep, unit_grid, side):
    """Row-major indices on the whole grid of the tokens of the kept units, unit by unit."""
    places = np.arange(unit_grid[0] * side * unit_grid[1] * side).reshape(unit_grid[0], side, unit_grid[1], side)
    return places.transpose(0, 2, 1, 3).reshape(-1, side * side)[keep].reshape(-1)


def textbook_attention(x, table, keep, unit_grid, side, window, shift, heads):
    """Softmax attention in numpy among the visible tokens of each window, with queries, keys and values all x."""
    grid = (unit_grid[0] * side, unit_grid[1] * side)
    places = visible_places(keep, unit_grid, side)
    allowed = same_window(grid, window, shift)[np.ix_(places, places)]
    row, column = np.divmod(places, grid[1])
    dy, dx = row[:, None] - row[None] + window - 1, column[:, None] - column[None] + window - 1
    index = np.where(allowed, dy * (2 * window - 1) + dx, 0)
    out = []
    for head, values in enumerate(np.split(np.asarray(x, np.float64), heads, axis=-1)):
        logits = values @ values.T / np.sqrt(values.shape[1]) + np.asarray(table, np.float64)[index, head]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True)) * allowed
        out.append(weights / weights.sum(axis=1, keepdims=True) @ values)
    return np.concatenate(out, axis=-1)


@dataclasses.dataclass(frozen=True)
class Case:
    unit_grid: tuple[int, int]
    side: int
    keep: int
    window: int
    shift: int


CASES = [
    Case((4, 4), 4, 5, 7, 3),  # a grid that is no multiple of the window, windows that cut units
    Case((7, 7), 4, 12, 7, 3),  # stage 2 of the real thing
    Case((3, 5), 2, 6, 3, 0),
    Case((2, 3), 8, 2, 4, 2),  # units larger than windows
    Case((3, 3), 2, 9, 6, 3),  # nothing masked, one window that shifts
]
SEEDS = st.integers(0, 2**32 - 1)
HEADS = 2


def sparse_attention(case, packed, x, table, keep):
    """Attention with queries, keys and values all x [m * r, n, 4], through a sparse layout."""
    layout = windows.sparse_windows(keep, case.unit_grid, case.side, case.window, case.shift, packed)
    groups = layout.pack(x, jnp.zeros(4))
    groups = groups.reshape(*groups.shape[:-1], HEADS, -1)
    return layout.unpack(windows.attend_in_groups(groups, groups, groups, layout.bias(table)))


@functools.partial(jax.jit, static_argnums=0)
def both_forms(case, x, table, keep):
    return [sparse_attention(case, packed, x, table, keep) for packed in (False, True)]


def random_inputs(case, seed):
    """Four images that share two masks: x, bias table, kept units."""
    rng = np.random.default_rng(seed)
    keep = np.stack([rng.permutation(np.prod(case.unit_grid))[: case.keep] for _ in range(2)]).astype(np.int32)
    x = rng.standard_normal((4, case.keep * case.side**2, 4)).astype(np.float32)
    table = rng.standard_normal(((2 * case.window - 1) ** 2, HEADS)).astype(np.float32)
    return x, table, keep


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CASES), SEEDS)
def test_sparse_attention_is_dense_attention_among_visible_tokens(case, seed):
    """Plain and packed, on any mask, against the textbook."""
    x, table, keep = random_inputs(case, seed)
    plain, packed = both_forms(case, x, table, keep)
    for image in range(4):
        expected = textbook_attention(
            x[image], table, keep[image // 2], case.unit_grid, case.side, case.window, case.shift, HEADS
        )
        np.testing.assert_allclose(plain[image], expected, atol=2e-6)
        np.testing.assert_allclose(packed[image], expected, atol=2e-6)


def test_both_forms_have_the_same_gradients():
    x, table, keep = map(jnp.asarray, random_inputs(CASES[0], 0))

    @jax.jit
    def gradients(x, table):
        def loss(packed, x, table):
            return jnp.sum(jnp.sin(sparse_attention(CASES[0], packed, x, table, keep)))

        return [jax.grad(functools.partial(loss, packed), argnums=(0, 1))(x, table) for packed in (False, True)]

    plain, packed = gradients(x, table)
    for one, other in zip(plain, packed, strict=True):
        assert np.abs(one).max() > 0.01
        np.testing.assert_allclose(one, other, atol=1e-5)


@functools.partial(jax.jit, static_argnums=(1, 2))
def packed_places(ids, number, size):
    return windows.pack_windows(ids, ids.size, ids.size, number, size)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(12 * 64, 7), (12 * 16, 7), (5 * 16, 4), (7, 2)]), st.integers(1, 49), SEEDS)
def test_packing_keeps_every_token_and_every_window_whole(shape, smallest, seed):
    """Window sizes drawn at will, also such as no mask gives: nothing overlaps, nothing is lost, nothing is split."""
    (num_tokens, window), rng, sizes = shape, np.random.default_rng(seed), []
    while sum(sizes) < num_tokens:
        size = int(rng.integers(min(smallest, window**2), window**2 + 1))
        sizes.append(min(size, num_tokens - sum(sizes)))
    ids = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    number = windows.num_groups(num_tokens, window)
    places = np.asarray(packed_places(ids, number, window**2))
    assert len(set(places.tolist())) == num_tokens
    assert places.min() >= 0
    assert places.max() < number * window**2
    for window_id in range(len(sizes)):
        assert len(set((places[ids == window_id] // window**2).tolist())) == 1


@pytest.mark.parametrize(("num_tokens", "window"), [(768, 7), (192, 7), (48, 7), (768, 14), (192, 14)])
def test_the_bound_on_groups_holds_where_windows_pack_worst(num_tokens, window):
    """Windows just above 1/2, 1/3, ... of a group waste the most room."""
    bound = windows.num_groups(num_tokens, window)
    assert bound * window**2 >= num_tokens
    for size in range(1, min(window**2, num_tokens) + 1):
        sizes = [size] * (num_tokens // size) + [1] * (num_tokens % size)
        groups = []
        for tokens in sizes:
            fitting = [i for i, fill in enumerate(groups) if fill + tokens <= window**2]
            if fitting:
                groups[fitting[0]] += tokens
            else:
                groups.append(tokens)
        assert len(groups) <= bound


def test_bound_for_the_published_models():
    """What docs/benchmarks.md says of Swin-B (window 7) and Swin-L (window 14) at 224 px."""
    assert [windows.num_groups(tokens, 7) for tokens in (768, 192, 48, 12)] == [30, 7, 1, 1]
    assert [windows.num_groups(tokens, 14) for tokens in (768, 192, 48, 12)] == [7, 1, 1, 1]


def test_relative_positions_are_query_minus_key():
    index = relative_position_index(3)
    assert index[0, 0] == 12
    assert index[1, 0] == 13  # the query one column to the right of the key
    assert index[3, 0] == 17  # the query one row below the key
    assert index[0, 8] == 0
    assert index[8, 0] == 24


class VisibleOnly(windows.DenseWindows):
    """Dense windows in which masked places are no keys: the dense counterpart of the sparse form."""

    def __init__(self, grid, window, shift, visible):
        super().__init__(grid, window, shift)
        object.__setattr__(self, "visible", visible)

    def bias(self, table):
        visible = self.pack(self.visible.reshape(1, -1, 1), jnp.zeros(1))[:, :, :, None, None, :, 0]
        return jnp.where(visible == 1, super().bias(table), -1e30)


class SeesAllAttendsVisible(Swin):
    """Processes every token of the grid, yet lets nobody attend to a masked one."""

    def __call__(self, images, mask=None, taps=(), key=None):
        self.dense_mask = mask.masked[0]
        return super().__call__(images, None, taps, key)

    def _layouts(self, index, grid, mask):
        window, shift = self.config.windows(index)
        side = self._unit_side(index)
        visible = 1 - jnp.repeat(jnp.repeat(self.dense_mask, side, axis=0), side, axis=1)
        return VisibleOnly(grid, window, 0, visible), VisibleOnly(grid, window, shift, visible)


ENCODERS = {
    "windows that fit the grid": swin_config(
        image_size=(28, 28), patch_size=2, width=4, depths=(2, 2), num_heads=(1, 2),
        sparse_attention=("packed", "plain"), epsilon2=1e-5,
    ),
    "not square, windows that shift on their own grid": swin_config(
        image_size=(32, 64), patch_size=4, width=4, depths=(2, 2), num_heads=(2, 1), window=4, window_rule="pad",
        tap_after_merging=False, sparse_attention=("plain", "packed"),
    ),
}  # fmt: skip


@functools.cache
def encoder(name):
    """(config, params, function of params, images, noise and the number of units kept -> sparse and dense features)."""
    config = ENCODERS[name]
    taps = config.default_taps
    graphdef, abstract, _ = trees.split(lambda rngs: Swin(config, rngs=rngs))
    rng = np.random.default_rng(0)
    # Larger than at the start, so that every bias and norm counts.
    params = trees.map_with_path(
        lambda path, leaf: jnp.asarray(
            rng.normal(1.0 if path.endswith("scale") else 0.0, 0.3, leaf.shape), jnp.float32
        ),
        abstract,
    )
    reference_graph, _, _ = trees.split(lambda rngs: SeesAllAttendsVisible(config, rngs=rngs))

    @functools.partial(jax.jit, static_argnums=3)
    def both(params, images, noise, keep):
        mask = mask_from_noise(noise, config.mask_grid, keep)
        sparse = trees.merge(graphdef, params)(images, mask, taps)
        if keep == noise.shape[1]:
            dense = trees.merge(graphdef, params)(images, None, taps)
        else:
            dense = trees.merge(reference_graph, params)(images, mask, taps)
        mask = mask.per_image(len(images))
        sparse = [to_grid(feature, mask, jnp.full(feature.shape[-1], jnp.nan)) for feature in sparse]
        return sparse, [f.reshape(-1, *config.feature_grid(t), f.shape[-1]) for f, t in zip(dense, taps, strict=True)]

    return config, params, both


def compare(name, keep, seed):
    config, params, both = encoder(name)
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((2, *config.image_size, 3)).astype(np.float32)
    noise = rng.random((1, np.prod(config.mask_grid)), np.float32)
    sparse, dense = both(params, images, noise, keep)
    for one, other in zip(sparse, dense, strict=True):
        hidden = np.isnan(one)
        np.testing.assert_allclose(np.where(hidden, 0, one), np.where(hidden, 0, other), atol=1e-5, rtol=1e-5)
        assert np.mean(hidden) == pytest.approx(1 - keep / noise.shape[1])


@pytest.mark.parametrize("name", ENCODERS)
def test_with_nothing_masked_the_sparse_encoder_is_the_dense_one(name):
    compare(name, int(np.prod(ENCODERS[name].mask_grid)), seed=1)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(ENCODERS)), SEEDS)
def test_the_sparse_encoder_is_a_dense_one_that_attends_to_visible_tokens(name, seed):
    compare(name, int(np.prod(ENCODERS[name].mask_grid)) // 4, seed)
