"""Raw validation images become class folders, by every form of the labels, and nothing happens where one is missing."""

import numpy as np
import pytest
from scipy.io import savemat

from localmim_jax.cli import imagenet_val, program
from localmim_jax.data.imagenet import read_labels, sort_validation
from localmim_jax.errors import DataError

SYNSETS = ["n02119789", "n01440764", "n02119789", "n03995372"]
NAMES = [f"ILSVRC2012_val_{number:08d}" for number in range(1, 5)]
NUMBERS = {"1": "n02119789", "7": "n01440764", "900": "n03995372"}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.JPEG").write_bytes(name.encode())
    return folder


@pytest.fixture(params=["kaggle", "meta.mat", "meta.txt", "synsets"])
def labels(request, tmp_path):
    """(file, meta)"""
    file, meta = tmp_path / "labels.txt", tmp_path / request.param
    if request.param == "kaggle":
        rows = [f"{name},{synset} 85 1 499 272 {synset} 3 4 5 6" for name, synset in zip(NAMES, SYNSETS, strict=True)]
        file.write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
        return file, None
    if request.param == "synsets":
        file.write_text("\n".join(SYNSETS) + "\n")
        return file, None
    numbers = {synset: number for number, synset in NUMBERS.items()}
    file.write_text("\n".join(numbers[synset] for synset in SYNSETS) + "\n")
    if request.param == "meta.mat":
        table = np.array(
            [(int(n), s, "words") for n, s in NUMBERS.items()], [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
        )
        savemat(meta, {"synsets": table})
    else:
        meta.write_text("\n".join(f"{number} {synset} some words" for number, synset in NUMBERS.items()))
    return file, meta


def test_every_form_of_the_labels(raw, labels, tmp_path):
    found = read_labels(*labels)
    assert found == dict(zip(NAMES, SYNSETS, strict=True))
    counts = sort_validation(raw, found, tmp_path / "val")
    assert counts == {"n02119789": 2, "n01440764": 1, "n03995372": 1}
    for name, synset in zip(NAMES, SYNSETS, strict=True):
        assert (tmp_path / "val" / synset / f"{name}.JPEG").read_bytes() == name.encode()
    assert len(list(raw.iterdir())) == 4
    (tmp_path / "val" / SYNSETS[3] / f"{NAMES[3]}.JPEG").unlink()
    assert sort_validation(raw, found, tmp_path / "val", move=True) == counts
    assert sorted(path.stem for path in raw.iterdir()) == NAMES[:3]
    assert sort_validation(raw, found, tmp_path / "val") == counts  # what was moved is there


def test_nothing_is_written_unless_all_is_there(raw, tmp_path):
    labels = dict(zip(NAMES, SYNSETS, strict=True))
    (raw / f"{NAMES[1]}.JPEG").rename(raw / "ILSVRC2012_val_00000009.JPEG")
    with pytest.raises(DataError, match=r"1 images have no label .*00000009"):
        sort_validation(raw, labels, tmp_path / "val")
    (raw / "ILSVRC2012_val_00000009.JPEG").unlink()
    with pytest.raises(DataError, match=r"1 images are labeled, but are not there .*00000002"):
        sort_validation(raw, labels, tmp_path / "val")
    assert not (tmp_path / "val").exists()
    with pytest.raises(DataError, match="gone cannot be listed"):
        sort_validation(tmp_path / "gone", labels, tmp_path / "val")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("dog\n", "line 1: no synset"),
        ("7\n", "give its data/meta.mat as --meta too"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000001,\n", "line 2: no synset"),
    ],
)
def test_labels_that_are_none(text, words, tmp_path):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / "labels.txt")


def test_the_command_says_what_it_found(raw, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("\n".join(SYNSETS))
    (tmp_path / "imagenet" / "train" / "n02119789").mkdir(parents=True)
    arguments = [f"--images={raw}", f"--labels={tmp_path / 'labels.txt'}", f"--output={tmp_path / 'imagenet' / 'val'}"]
    with pytest.raises(DataError, match="train has 1 class folders, of which 1 are among those"):
        imagenet_val.main(program.parse(arguments, imagenet_val.define_flags))
    printed = capsys.readouterr().out
    assert "4 images of 3 classes, 1 to 2 a class" in printed
    assert "not all of ImageNet's validation set" in printed
