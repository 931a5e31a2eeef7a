"""Names of files: Unicode in any form, line breaks, leading dashes, quotes, bytes of no encoding."""

import json
import os
import shutil
import unicodedata

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from localmim_jax.cli.images import free_names, read
from localmim_jax.data.decode import decode
from localmim_jax.data.folder import FolderSource
from localmim_jax.detection.coco import CocoSource
from localmim_jax.segmentation.check import check_examples
from localmim_jax.segmentation.sources import MaskFolder
from tests.fuzz.rounds import fuzz, result_or_one_line

ODD = st.sampled_from(
    [
        "-",
        "--output=x",
        "\n",
        "\r\n",
        "'",
        '"',
        " ",
        "\t",
        "é",
        "é",
        "\u2028",
        "\x1b[2J",
        "%s",
        "{}",
        "$(id)",
        "*",
        "\\",
        "~",
    ]
)
TEXT = st.lists(ODD | st.text(max_size=4), min_size=1, max_size=4).map("".join)
BYTES = st.binary(min_size=1, max_size=8).map(os.fsdecode)


def is_name(text):
    raw = (
        os.fsencode(text) if all(not 0xD800 <= ord(c) < 0xDC80 and not 0xDD00 <= ord(c) < 0xE000 for c in text) else b""
    )
    return (
        0 < len(raw) < 240 and b"/" not in raw and b"\0" not in raw and not text.startswith((".", "__MACOSX", "@eaDir"))
    )


NAMES = st.lists(
    (TEXT | BYTES).filter(is_name), min_size=1, max_size=4, unique_by=lambda name: unicodedata.normalize("NFC", name)
)


def picture(path, gray):
    Image.new("RGB", (6, 4), (gray, gray, gray)).save(path, "PNG")


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@fuzz(25, names=NAMES, broken=st.booleans())
def test_a_folder_has_every_image_by_its_name(folder, names, broken):
    root = fresh(folder / "images")
    for gray, name in enumerate(names):
        (root / name).mkdir()
        picture(root / name / f"{name}.png", gray)
    if broken:
        (root / names[0] / f"{names[0]}.png").write_bytes(b"no image")
    source = result_or_one_line(lambda: FolderSource(str(root)))
    if source is None:  # folders that are named like splits
        return
    assert {source.key_of(i) for i in range(len(source))} == {f"{name}/{name}.png" for name in names}
    assert len(source.class_names) == len(names)
    for i in range(len(source)):
        with open(source.name_of(i), "rb") as file:
            assert file.read() == source[i]["image"]
        result_or_one_line(lambda: read(source.name_of(i)))


@fuzz(15, names=NAMES)
def test_masks_find_their_images(folder, names):
    for kind in ("images", "annotations"):
        fresh(folder / kind / "training")
    (folder / "classes.txt").write_text("a\nb\n")
    for gray, name in enumerate(names):
        picture(folder / "images" / "training" / f"{name}.jpg", gray)
        Image.new("L", (6, 4), 1 + gray % 2).save(folder / "annotations" / "training" / f"{name}.png")
    source = result_or_one_line(lambda: MaskFolder(str(folder), "training"))
    assert source is not None
    result_or_one_line(lambda: check_examples(source))
    for i in range(len(source)):
        gray = int(np.asarray(decode(source[i]["image"], 3))[0, 0, 0])
        assert (source[i]["mask"] == gray % 2).all()
        assert source.key_of(i) == f"{names[gray]}.jpg"


@fuzz(15, names=NAMES)
def test_coco_finds_its_images(folder, names):
    root = fresh(folder / "coco")
    (root / "val").mkdir()
    (root / "annotations").mkdir()
    for gray, name in enumerate(names):
        picture(root / "val" / f"{name}.png", gray)
    images = [{"id": i, "file_name": f"{name}.png", "height": 4, "width": 6} for i, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": names[0]}]}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    source = CocoSource(str(root), "val")
    assert not source.missing()
    for i in range(len(source)):
        assert (np.asarray(decode(source.read(i), 3)) == i).all()


@fuzz(15, names=NAMES)
def test_results_have_names_of_their_own(folder, names):
    images = [*names, names[0], f"{names[0]}_2", *names]
    paths = free_names([str(folder / f"{name}.png") for name in images], folder / "out")
    assert len(set(paths)) == len(images)
    assert all(path.parent == folder / "out" for path in paths)
