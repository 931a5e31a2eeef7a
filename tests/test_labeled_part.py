"""Parts of labeled datasets: the same fraction of each class, the same everywhere, nested."""

import numpy as np
import pytest

from localmim_jax.data.holdout import held_out
from localmim_jax.data.labeled_part import LabeledPart
from localmim_jax.data.source import Source
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.recipes.load import load_config
from localmim_jax.tasks import finetune


class Named(Source):
    """Examples of given labels."""

    name = "named[train]"
    class_names = ("a", "b", "c")
    num_classes = 3

    def __init__(self, labels):
        self._given = np.array(labels)

    def __len__(self):
        return len(self._given)

    def __getitem__(self, index):
        return {"image": np.full((1, 1, 1), index % 256, np.uint8), "label": int(self._given[index])}

    def key_of(self, index):
        return f"{index}.png"


SOURCE = Named([0] * 400 + [1] * 200 + [2] * 3)


def test_each_class_has_its_fraction_and_at_least_one():
    part = LabeledPart(SOURCE, 0.1)
    assert np.bincount(part.all_labels()).tolist() == [40, 20, 1]
    assert (len(part), part.num_classes, part.class_names) == (61, 3, SOURCE.class_names)
    assert part.name == "named[train] (0.1 of each class)"
    assert (np.diff(part.indices) > 0).all()
    for i in (0, 30, 60):
        index = int(part.indices[i])
        assert (part[i]["label"], part.key_of(i)) == (SOURCE[index]["label"], f"{index}.png")
        assert part.name_of(i) == SOURCE.name_of(index)


def test_a_smaller_part_lies_within_a_larger_one_and_neither_is_the_first_images():
    small, large, whole = (LabeledPart(SOURCE, fraction).indices for fraction in (0.05, 0.5, 1.0))
    assert set(small) < set(large) < set(whole)
    assert whole.tolist() == list(range(603))
    assert small.max() > 500
    assert small.tolist() != list(range(len(small)))


def test_it_is_the_same_on_every_machine():
    assert LabeledPart(Named([0] * 20), 0.2).indices.tolist() == [10, 12, 16, 18]


def test_the_part_is_drawn_anew_from_what_is_held_out():
    """data.val_fraction takes the smallest hashes; had the part the same, it would be a class's held-out images."""
    names, labels = [SOURCE.key_of(i) for i in range(603)], SOURCE.all_labels()
    held = np.flatnonzero(held_out(names, labels, 0.1))
    assert len(set(held) & set(LabeledPart(SOURCE, 0.1).indices)) < 20


def test_another_part_has_another_fingerprint():
    assert LabeledPart(SOURCE, 0.1).fingerprint() == LabeledPart(SOURCE, 0.1).fingerprint()
    assert LabeledPart(SOURCE, 0.1).fingerprint() != LabeledPart(SOURCE, 0.11).fingerprint()


def test_impossible_parts_are_refused():
    for fraction in (0.0, -0.1, 1.5):
        with pytest.raises(ConfigError, match=r"data\.label_fraction is .*; it must be above 0 and at most 1"):
            LabeledPart(SOURCE, fraction)
    unlabeled = Named([0])
    unlabeled.num_classes = 0
    with pytest.raises(DataError, match="has no labels; they are needed to take a part of each class"):
        LabeledPart(unlabeled, 0.1)


def test_fine_tuning_reads_the_part_alone():
    config = load_config("small_finetune:vit").unlock()
    config.data.update({"split": "train", "label_fraction": 0.1})
    task = finetune.build(config, "")
    assert task.steps_per_epoch * config.batch_size == 150
    batches = task.train_batches(0)
    seen = {int(i) for _ in range(6) for i in next(batches)["id"]}
    assert len(seen) == 150
