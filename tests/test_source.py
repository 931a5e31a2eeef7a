import numpy as np
import pytest

from localmim_jax.data.source import Source, require_labels, require_same_classes
from localmim_jax.errors import DataError


class Named(Source):
    def __init__(self, name, classes, num_classes=None):
        self.name, self.class_names = name, tuple(classes)
        self.num_classes = len(self.class_names) if num_classes is None else num_classes

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": [b"junk", np.zeros((4, 6, 1), np.uint8), np.zeros((8, 5, 1), np.uint8)][index]}

    def key_of(self, index):
        return f"key {index}"


def test_a_description_leaves_out_what_cannot_be_read():
    text = Named("pets", []).describe()
    assert text == "pets: 3 images, 4 x 5 to 8 x 6 pixels (2 sampled), such as pets/key 0, pets/key 1, pets/key 2"


def test_labels_must_be_there_and_as_many_as_the_model_has():
    require_labels(Named("pets", "ab"), 2)
    with pytest.raises(DataError, match="pets has no labels"):
        require_labels(Named("pets", ""), 2)
    with pytest.raises(DataError, match="pets has 2 classes, and the model 37"):
        require_labels(Named("pets", "ab"), 37)


def test_classes_must_be_the_same():
    train = Named("train", "abc")
    require_same_classes(train, Named("val", "abc"))
    with pytest.raises(DataError, match=r"only in val: d, e, f, g, h and 2 more; only in train: c"):
        require_same_classes(train, Named("val", "abdefghij"))
    with pytest.raises(DataError, match=r"only in train: c"):
        require_same_classes(train, Named("val", "ab"))
    with pytest.raises(DataError, match=r"3 classes in train, 3 in val, in another order"):
        require_same_classes(train, Named("val", "cab"))
