"""Masks of every mode and depth: the stored values, or one line."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from localmim_jax.data.index_mask import decode_indices
from localmim_jax.segmentation.check import check_examples
from localmim_jax.segmentation.numbering import IGNORED
from localmim_jax.segmentation.sources import open_masks
from tests.fuzz.mutate import damaged
from tests.fuzz.rounds import fuzz, result_or_one_line
from tests.test_index_mask import GRAY, GRAY_ALPHA, PALETTE, RGB, RGB_ALPHA, png

DEPTHS = {GRAY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8), RGB: (8, 16), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
CHANNELS = {GRAY: 1, PALETTE: 1, RGB: 3, GRAY_ALPHA: 2, RGB_ALPHA: 4}
KINDS = [(color, depth) for color, depths in DEPTHS.items() for depth in depths]
WHOLE = png(np.random.default_rng(0).integers(0, 4, (9, 11)), 2)


@fuzz(
    60,
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0),
    gray=st.booleans(),
)
def test_a_mask_of_any_mode_gives_what_is_stored(folder, kind, size, seed, gray):
    (color, depth), rng = kind, np.random.default_rng(seed)
    values = rng.integers(0, 2**depth, (*size, 1 if gray else CHANNELS[color]))
    values = np.broadcast_to(values, (*size, CHANNELS[color])).copy()
    if color in (GRAY_ALPHA, RGB_ALPHA) and gray:
        values[..., -1] = 2**depth - 1
    palette = rng.integers(0, 256, 3 * 2**depth).tolist() if color == PALETTE else ()
    found = result_or_one_line(lambda: decode_indices(png(values, depth, color, palette)))
    colors = values[..., : CHANNELS[color] - (color in (GRAY_ALPHA, RGB_ALPHA))]
    opaque = color not in (GRAY_ALPHA, RGB_ALPHA) or (values[..., -1] == 2**depth - 1).all()
    readable = color in (GRAY, PALETTE) or (depth == 8 and opaque and (colors == colors[..., :1]).all())
    assert (found is not None) == readable
    if readable:
        np.testing.assert_array_equal(found, values[..., 0])


@fuzz(60, content=damaged(WHOLE))
def test_a_damaged_mask_is_decoded_or_one_line(folder, content):
    found = result_or_one_line(lambda: decode_indices(content))
    assert found is None or (found.ndim == 2 and found.dtype == np.int32 and found.min() >= 0)


@fuzz(
    20,
    values=st.lists(st.sets(st.sampled_from([0, 1, 2, 3, 7, 254, 255]), min_size=1), min_size=1, max_size=3),
    zero_ignored=st.booleans(),
    mask_values=st.none() | st.lists(st.integers(-1, 256), min_size=1, max_size=4).map(tuple),
    classes=st.integers(1, 4),
)
def test_a_folder_of_masks_has_its_labels_or_is_one_line(folder, values, zero_ignored, mask_values, classes):
    for kind in ("images", "annotations"):
        (folder / kind / "training").mkdir(parents=True, exist_ok=True)
        for old in (folder / kind / "training").iterdir():
            old.unlink()
    (folder / "classes.txt").write_text("".join(f"{i}\n" for i in range(classes)))
    for i, each in enumerate(values):
        stored = np.resize(np.array(sorted(each), np.uint8), (4, 6))
        Image.fromarray(stored).save(folder / "annotations" / "training" / f"{i}.png")
        Image.new("RGB", (6, 4)).save(folder / "images" / "training" / f"{i}.png")

    def opened():
        name = f"masks:{folder}"
        source = open_masks(name, "training", zero_ignored=zero_ignored, mask_values=mask_values)
        check_examples(source)
        return source

    source = result_or_one_line(opened)
    if source is None:
        return
    first = 1 if zero_ignored else 0
    known = list(range(first, first + classes)) if mask_values is None else list(mask_values)
    labels = [source[i]["mask"] for i in range(len(source))]
    assert any((each != IGNORED).any() for each in labels), "nothing to learn from"
    for each, label in zip(values, labels, strict=True):
        stored = np.resize(np.array(sorted(each), np.uint8), (4, 6))
        for value in each:
            expected = known.index(value) if value in known else IGNORED
            assert (label[stored == value] == expected).all()
            assert value in known or value == 255 or (value == 0 and zero_ignored)
        assert (source.stored(label)[label != IGNORED] == stored[label != IGNORED]).all()


@fuzz(10, content=st.binary(max_size=200))
def test_any_bytes_are_no_mask(folder, content):
    assert result_or_one_line(lambda: decode_indices(content)) is None
