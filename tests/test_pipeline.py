"""A batch is a pure function of seed and step: counted, resumed, divided among hosts and threads, damaged."""

import itertools
import threading

import numpy as np
import pytest

from localmim_jax.data.augment import EvalTransform
from localmim_jax.data.decode import FORMATS, DecodeError
from localmim_jax.data.pipeline import eval_batches, train_batches
from localmim_jax.data.plan import one_group
from localmim_jax.data.shard import Shard
from localmim_jax.data.source import Source
from localmim_jax.data.sources import FakeSource
from localmim_jax.errors import ConfigError, DataError
from tests.defaults import data_config


class Numbered(Source):
    """Tiny gray gradients in memory, some of them undecodable; the label is the index modulo ten."""

    num_classes = 10

    def __init__(self, count, bad=(), labels=None):
        self.name = "numbered"
        self.count, self.bad, self.labels = count, frozenset(bad), labels or {}

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            return {"image": b"junk", "label": 0}
        image = (np.arange(12 * 10, dtype=np.uint8).reshape(12, 10) + index).astype(np.uint8)
        return {"image": image, "label": self.labels.get(index, index % 10)}

    def key_of(self, index):
        return f"{index}.jpg"


def config(batch_size, **changes):
    defaults = {"name": "tfds:numbered", "image_size": (4, 6), "channels": 1, "num_threads": 2, "seed": 3}
    return data_config(**defaults | {"batch_size": batch_size} | changes)


def take(batches, count):
    return list(itertools.islice(batches, count))


def ids(batches):
    return np.concatenate([batch["id"] for batch in batches])


def assert_same(these, those):
    for this, that in zip(these, those, strict=True):
        assert this.keys() == that.keys()
        for key in this:
            np.testing.assert_array_equal(this[key], that[key])


@pytest.mark.parametrize(("count", "batch"), [(13, 6), (12, 6), (7, 18), (1, 6), (100, 30)])
@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_every_example_once_an_epoch_over_any_number_of_hosts(count, batch, hosts):
    epochs = 3
    steps = -(-epochs * count // batch)
    source = Numbered(count)
    parts = [
        take(train_batches(config(batch), source, 0, steps, Shard(host, hosts)), steps + 1) for host in range(hosts)
    ]
    assert [len(part) for part in parts] == [steps] * hosts
    line = np.concatenate([part[step]["id"] for step in range(steps) for part in parts])
    orders = [line[epoch * count : (epoch + 1) * count].tolist() for epoch in range(epochs)]
    for order in orders:
        assert sorted(order) == list(range(count))
    if count > 6:
        assert orders[0] != orders[1] != orders[2] != orders[0]
        assert orders[0] != sorted(orders[0])
    whole = take(train_batches(config(batch), source, 0, steps), steps)
    joined = [{k: np.concatenate([part[step][k] for part in parts]) for k in whole[0]} for step in range(steps)]
    assert_same(joined, whole)


def test_what_a_batch_is():
    batch = next(train_batches(config(6), Numbered(20)))
    assert {key: (value.shape, str(value.dtype)) for key, value in batch.items()} == {
        "image": ((6, 4, 6, 1), "uint8"),
        "label": ((6,), "int32"),
        "id": ((6,), "int64"),
    }
    np.testing.assert_array_equal(batch["label"], batch["id"] % 10)


@pytest.mark.parametrize("first", [1, 2, 3, 7])
def test_a_resumed_run_sees_what_the_uninterrupted_one_saw(first):
    """Steps in the middle of an epoch, its last, and its first: 12 examples, two steps an epoch."""
    source = Numbered(12)
    whole = take(train_batches(config(6), source, 0, 9), 9)
    assert_same(take(train_batches(config(6), source, first, 9), 9), whole[first:])


def test_without_an_end():
    assert len(take(train_batches(config(6), Numbered(3)), 50)) == 50


def test_nothing_is_left_of_a_finished_run():
    assert list(train_batches(config(6), Numbered(3), 5, 5)) == []


@pytest.mark.parametrize("changes", [{"num_threads": 1}, {"num_threads": 5}, {"prefetch_batches": 7}])
def test_threads_change_nothing(changes):
    source = Numbered(40)
    assert_same(take(train_batches(config(6, **changes), source), 10), take(train_batches(config(6), source), 10))


def test_processes_change_nothing_and_pass_errors_on(tmp_path):
    source = Numbered(40)
    expected = take(train_batches(config(6), source, 2, 9), 9)
    assert_same(take(train_batches(config(6, num_workers=2), source, 2, 9), 9), expected)
    broken = config(6, num_workers=1, max_bad_fraction=0.05)
    with pytest.raises(DataError, match=r"40 images of numbered cannot be decoded, and data\.max_bad_fraction=0\.05"):
        take(train_batches(broken, Numbered(40, bad=range(40)), bad_list=tmp_path / "bad.txt"), 9)


def test_crops_are_new_each_epoch_and_for_each_place():
    source = Numbered(1)
    images = take(train_batches(config(4), source), 2)
    crops = [crop.tobytes() for batch in images for crop in batch["image"]]
    assert len(set(crops)) > 4


def test_seeds_are_far_apart():
    """Grain numbers epochs by adding to the seed: epoch 1 of seed 0 must not be epoch 0 of seed 1."""
    source = Numbered(24)
    orders = {
        tuple(ids(take(train_batches(config(24, seed=seed), source, epoch), 1)))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_a_bad_example_is_named_once_and_replaced_by_the_same_other_one(tmp_path):
    bad = {3, 4, 19}
    path = tmp_path / "bad_examples.txt"
    source = Numbered(20, bad)
    settings = config(5, max_bad_fraction=0.15)
    whole = take(train_batches(settings, source, 0, 8, bad_list=path), 8)
    good = ids(take(train_batches(config(5), Numbered(20)), 8))
    np.testing.assert_array_equal(ids(whole), [{3: 5, 4: 5, 19: 0}.get(int(i), i) for i in good])
    lines = path.read_text().splitlines()
    assert sorted(lines) == [
        f"{i}\tnumbered/{i}.jpg\tnot an image of a known format ({', '.join(FORMATS)})" for i in (19, 3, 4)
    ]
    assert_same(take(train_batches(settings, source, 3, 8, bad_list=path), 8), whole[3:])
    assert path.read_text().splitlines() == lines


def test_each_host_has_its_own_list(tmp_path):
    source = Numbered(4, {1})
    for host in range(2):
        take(train_batches(config(8, max_bad_fraction=0.5), source, 0, 4, Shard(host, 2), bad_list=tmp_path / "bad"), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "bad.1"]


@pytest.mark.parametrize(("bad", "fraction"), [({1, 2}, 0.05), (range(20), 0.5), ({1}, 0.0)])
def test_too_many_bad_examples_end_the_run(bad, fraction):
    with pytest.raises(
        DataError, match=f"20 images of numbered cannot be decoded, and data.max_bad_fraction={fraction:g}"
    ):
        take(train_batches(config(5, max_bad_fraction=fraction), Numbered(20, bad)), 8)


def test_nothing_but_bad_examples():
    with pytest.raises(DataError, match="not one of the 5 images of numbered"):
        take(train_batches(config(5, max_bad_fraction=1.0), Numbered(5, range(5))), 1)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range_is_named(label):
    with pytest.raises(DataError, match=rf"numbered/2.jpg has label {label}; numbered has 10 classes, 0 to 9"):
        take(train_batches(config(5), Numbered(20, labels={2: label})), 4)


def test_the_batch_must_divide_among_the_hosts():
    with pytest.raises(ConfigError, match="multiple of the 2 processes"):
        train_batches(config(5), Numbered(20), shard=Shard(0, 2))
    with pytest.raises(ConfigError, match="multiple of the 2 processes"):
        eval_batches(config(6), Numbered(20), 5, Shard(0, 2))


class KeepsTheMiddle:
    """A transform of another task: it sees the whole example, its own rng, and may refuse."""

    def __call__(self, example, rng):
        if isinstance(example["image"], bytes):
            raise DecodeError("bytes")
        return {"pixel": example["image"][6, 5], "noise": rng.random(2, dtype=np.float32)}


def test_another_transform():
    batches = take(train_batches(config(6), Numbered(12, {2}), transform=KeepsTheMiddle()), 4)
    assert batches[0].keys() == {"pixel", "noise", "id"}
    assert batches[0]["noise"].shape == (6, 2)
    assert len({float(value) for batch in batches for value in batch["noise"][:, 0]}) == 24
    np.testing.assert_array_equal(batches[1]["pixel"], batches[1]["id"] + 65)


@pytest.mark.parametrize("hosts", [1, 2, 3])
@pytest.mark.parametrize(("count", "batch"), [(13, 6), (12, 6), (5, 12), (1, 6)])
def test_an_evaluation_sees_everything_once(hosts, count, batch):
    parts = [list(eval_batches(config(1), Numbered(count), batch, Shard(host, hosts))) for host in range(hosts)]
    assert [len(part) for part in parts] == [-(-count // batch)] * hosts
    whole = [{k: np.concatenate([p[k] for p in step]) for k in step[0]} for step in zip(*parts, strict=True)]
    seen, valid = ids(whole), np.concatenate([b["valid"] for b in whole])
    assert seen[valid].tolist() == list(range(count))
    assert (seen[~valid] == -1).all()
    assert valid.dtype == bool
    images = np.concatenate([b["image"] for b in whole])
    assert images.shape[1:] == (4, 6, 1)
    assert not images[~valid].any()
    assert not np.concatenate([b["label"] for b in whole])[~valid].any()


def test_an_evaluation_of_a_few_examples_takes_them_from_everywhere():
    batches = list(eval_batches(config(1), Numbered(100), 4, groups=one_group(100, 10)))
    assert ids(batches)[:10].tolist() == list(range(0, 100, 10))
    assert sum(batch["valid"].sum() for batch in batches) == 10
    few = eval_batches(config(1), Numbered(7), 7, groups=one_group(7, 10))
    assert ids(few).tolist() == list(range(7))


def test_an_evaluation_leaves_nothing_out():
    with pytest.raises(DataError, match=r"numbered/5.jpg: not an image .*; evaluation needs every image"):
        list(eval_batches(config(1, max_bad_fraction=1.0), Numbered(12, {5}), 4))


def test_statistics_of_training_images_skip_undecodable_ones():
    """They are padding, the first one and those of the padding of a batch included."""
    batches = list(eval_batches(config(1), Numbered(10, {0, 5}), 4, skip_bad=True))
    read = [batch["id"][batch["valid"]].tolist() for batch in batches]
    assert read == [[1, 2, 3], [4, 6, 7], [8, 9]]
    assert not any(batch["image"][~batch["valid"]].any() for batch in batches)
    with pytest.raises(DataError, match="not one of the 2 images"):
        list(eval_batches(config(1), Numbered(2, {0, 1}), 2, skip_bad=True))


def test_an_evaluation_with_its_own_transform_and_in_processes():
    expected = list(eval_batches(config(1), Numbered(10), 4, transform=EvalTransform((8, 8), 1, 12)))
    assert expected[0]["image"].shape == (4, 8, 8, 1)
    workers = config(1, num_workers=1)
    assert_same(list(eval_batches(workers, Numbered(10), 4, transform=EvalTransform((8, 8), 1, 12))), expected)


def test_fake_images_have_their_final_size_and_the_same_every_time():
    source = FakeSource(10, (4, 6), 5, "train")
    settings = config(6, name="fake", channels=5)
    batches = take(train_batches(settings, source), 3)
    for batch in batches:
        for index, image, label in zip(batch["id"], batch["image"], batch["label"], strict=True):
            np.testing.assert_array_equal(image, source[int(index)]["image"])
            assert label == index
    assert ids(eval_batches(settings, source, 5)).tolist() == list(range(10))


def test_early_closing_stops_the_threads():
    before = set(threading.enumerate())
    batches = train_batches(config(6, num_threads=3), Numbered(40))
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()
    for thread in started:
        thread.join(timeout=60)
        assert not thread.is_alive()
