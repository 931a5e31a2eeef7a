import pytest

from localmim_jax.data.splits import divided, find_split, splits_in, usual_name


@pytest.mark.parametrize(
    ("folders", "split", "expected"),
    [
        (["train", "val"], "train", ["train"]),
        (["Train", "Valid"], "train", ["Train"]),
        (["Train", "Valid"], "validation", ["Valid"]),
        (["training", "dev"], "val", ["dev"]),
        (["train", "testing"], "test", ["testing"]),
        (["val", "validation"], "val", ["val"]),
        (["Val", "validation"], "val", ["Val"]),
        (["val", "valid"], "validation", ["val", "valid"]),
        (["train", "test"], "val", []),
        (["fold0", "fold1"], "fold1", ["fold1"]),
    ],
)
def test_the_folder_of_a_split(folders, split, expected):
    assert find_split(folders, split) == expected


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train"], True),
        (["train", "extra"], True),
        (["Training", "holdout"], True),
        (["Test", "other"], True),
        (["valid", "dev"], True),
        (["valid", "invalid"], False),
        (["cat", "dog"], False),
        ([], False),
    ],
)
def test_splits_are_told_from_classes(folders, expected):
    assert divided(folders) is expected


def test_the_names_of_prepared_splits():
    names = ["Train", "training", "valid", "Validation", "dev", "TEST", "fold1", "train[:9]"]
    assert list(map(usual_name, names)) == ["train", "train", "val", "val", "val", "test", "fold1", "train[:9]"]


def test_splits_in_their_usual_order():
    assert splits_in(["Test", "extra", "train", "valid"]) == ["train", "valid", "Test"]
