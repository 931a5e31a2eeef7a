"""Image files with changed bytes: decoded, or listed as bad."""

import functools
import io

import numpy as np
import skimage.data
from hypothesis import strategies as st
from PIL import Image

from localmim_jax.data.bad_examples import BadExamples
from localmim_jax.data.decode import FORMATS, decode, image_size, to_array
from localmim_jax.data.folder import FolderSource
from localmim_jax.data.plan import Place, one_group
from localmim_jax.data.read import Reader
from tests.fuzz.mutate import damaged
from tests.fuzz.rounds import fuzz, result_or_one_line

PHOTO = Image.fromarray(skimage.data.astronaut()[100:140, 200:248])
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "LA")


@functools.cache
def encoded(kind, mode):
    """A photograph in a format and a mode, or in RGB where the format has no such mode."""
    deep = Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 200)
    image = deep if mode == "I;16" else PHOTO.convert("L").convert("LA") if mode == "LA" else PHOTO.convert(mode)
    for each in (image, PHOTO):
        out = io.BytesIO()
        try:
            each.save(out, kind)
        except (OSError, ValueError, KeyError):
            continue
        return out.getvalue()
    raise AssertionError(kind)


ENCODED = st.builds(encoded, st.sampled_from(FORMATS), st.sampled_from(MODES))


@fuzz(120, content=ENCODED.flatmap(damaged), channels=st.sampled_from([1, 3, 4]))
def test_changed_bytes_are_decoded_or_one_line(folder, content, channels):
    image = result_or_one_line(lambda: to_array(decode(content, channels)))
    if image is not None:
        assert image.dtype == np.uint8
        assert image.shape == (*image_size(content), channels)


@fuzz(15, content=ENCODED.flatmap(damaged), suffix=st.sampled_from([".jpg", ".png", ".tif", ".gif"]))
def test_a_file_in_a_folder_is_read_or_listed_and_replaced(folder, content, suffix):
    images, bad = folder / "images", folder / "bad_examples.txt"
    images.mkdir(exist_ok=True)
    for old in (*images.iterdir(), *folder.glob("bad_*")):
        old.unlink()
    (images / f"a{suffix}").write_bytes(content)
    PHOTO.save(images / "b.png")
    source = FolderSource(str(images))
    listed = BadExamples(source.name, len(source), 0.5, bad)
    reader = Reader(
        source, one_group(len(source)), lambda example, rng: {"image": to_array(decode(example["image"], 3))}, listed
    )
    example = reader(Place(0, 0), np.random.default_rng(0))
    assert example["image"].ndim == 3
    assert bad.exists() == (example["id"] == 1)
    if bad.exists():
        assert bad.read_text().startswith("0\t")
        assert len(bad.read_text().splitlines()) == 1
