import collections
import dataclasses

import numpy as np
import pytest

from localmim_jax.data.pipeline import eval_batches, train_batches
from localmim_jax.data.plan import Group, TrainingPlan
from localmim_jax.data.shard import WHOLE, Shard
from localmim_jax.detection.augment import DetectionEvalTransform
from localmim_jax.detection.buckets import make_buckets
from localmim_jax.detection.coco import CocoSource
from localmim_jax.detection.sources import FakeDetection
from localmim_jax.errors import DataError
from tests.defaults import data_config
from tests.test_coco import write
from tests.test_detection_augment import PLAIN

CONFIG = data_config(name="fake", image_size=(32, 64), batch_size=4, seed=3, num_threads=2)
TRANSFORM = dataclasses.replace(
    PLAIN, short_sides=(24, 32), long_side=64, crop_sides=(32,), crop_range=(16, 32), flip=True
)


@pytest.fixture
def source():
    return FakeDetection(23, 3, (32, 64), "train")  # 15 landscape, 8 portrait


def batches(source, first=0, last=12, config=CONFIG, shard=WHOLE, bad_list=None):
    groups = make_buckets(source, config.image_size)
    return list(
        train_batches(config, source, first, last, shard, transform=TRANSFORM, groups=groups, bad_list=bad_list)
    )


def evaluation(source, batch_size, config=CONFIG, shard=WHOLE):
    groups = make_buckets(source, config.image_size)
    transform = DetectionEvalTransform(24, 64)
    return list(eval_batches(config, source, batch_size, shard, transform=transform, groups=groups))


def test_every_batch_has_one_shape_and_every_image_its_own(source):
    shapes = set()
    for batch in batches(source):
        shapes.add(batch["image"].shape[1:])
        landscape = [source.size_of(i) == (32, 64) for i in batch["id"]]
        assert set(landscape) == {batch["image"].shape == (4, 32, 64, 3)}
        assert batch["boxes"].shape == (4, 4, 4)
        assert batch["masks"].shape == (4, 4, 20, 20)
    assert shapes == {(32, 64, 3), (64, 32, 3)}


def test_no_image_is_lost_and_shares_are_kept_at_every_step(source):
    counts, steps = collections.Counter(), collections.Counter()
    buckets = make_buckets(source, CONFIG.image_size)
    for step, batch in enumerate(batches(source, last=46)):  # 184 positions, 8 epochs
        counts.update(batch["id"].tolist())
        steps[batch["image"].shape[1:3]] += 1
        for bucket in buckets:
            times = [counts[index] for index in bucket.members]
            assert max(times) - min(times) <= 1
            assert abs(steps[bucket.size] - (step + 1) * len(bucket.members) / 23) <= 1
    assert set(counts.values()) == {8}
    assert len(counts) == 23


def test_each_epoch_has_another_order(source):
    landscape = [i for b in batches(source, last=46) if b["image"].shape[1] == 32 for i in b["id"].tolist()]
    epochs = [landscape[start : start + 15] for start in range(0, 120, 15)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


@pytest.mark.parametrize("changes", [{"num_threads": 1}, {"prefetch_batches": 1}])
def test_batches_are_pure_in_seed_and_step(source, changes):
    whole = batches(source)
    resumed = batches(source, first=7, config=dataclasses.replace(CONFIG, **changes))
    for left, right in zip(whole[7:], resumed, strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])
    other = batches(source, config=dataclasses.replace(CONFIG, seed=4))
    assert any((a["id"] != b["id"]).any() for a, b in zip(whole, other, strict=True))


def test_hosts_share_each_batch_and_its_shape(source):
    whole = batches(source)
    parts = [batches(source, shard=Shard(i, 2)) for i in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([half[key] for half in halves]))


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_sees_every_image_once(source, hosts):
    parts = [evaluation(source, 8, shard=Shard(index, hosts)) for index in range(hosts)]
    assert {len(part) for part in parts} == {3}  # two of the 15 landscape images, one of the 8 portrait ones
    seen = [i for part in parts for batch in part for i in batch["id"][batch["valid"]]]
    assert sorted(seen) == list(range(23))
    for step in zip(*parts, strict=True):
        assert len({batch["image"].shape for batch in step}) == 1
    assert all((batch["id"][~batch["valid"]] == -1).all() for part in parts for batch in part)


def test_one_bucket_where_all_are_landscape_or_the_size_is_a_square(source):
    assert [bucket.size for bucket in make_buckets(source, (64, 64))] == [(64, 64)]
    only = make_buckets(FakeDetection(1, 3, (64, 32), "train"), (32, 64))
    assert [bucket.size for bucket in only] == [(32, 64)]
    plan = TrainingPlan(only, 4, seed=0)
    assert [plan.at(step) for step in range(3)] == [(0, 0), (0, 1), (0, 2)]


def test_a_missing_image_is_replaced_named_and_limited(tmp_path):
    source = CocoSource(str(write(tmp_path)), "val")
    config = dataclasses.replace(CONFIG, batch_size=2, max_bad_fraction=0.25)
    bad_list = tmp_path / "bad.txt"
    made = batches(source, 0, 6, config, bad_list=bad_list)
    assert 3 not in {int(i) for batch in made for i in batch["id"]}
    assert "val/4.png" in bad_list.read_text()
    bad_list.unlink()
    strict = dataclasses.replace(config, max_bad_fraction=0.0)
    with pytest.raises(DataError, match="1 of the 4 images"):
        batches(source, 0, 6, strict, bad_list=bad_list)
    unreadable = r"val/4.png: the file cannot be read \(No such file.*evaluation needs every image"
    with pytest.raises(DataError, match=unreadable):
        evaluation(source, 2, config)


def test_three_hundred_objects_fit(tmp_path):
    from tests.test_coco import annotation

    crowded = [annotation(i, 10) for i in range(300)]
    source = CocoSource(str(write(tmp_path, {"annotations": crowded})), "val")
    assert source.max_objects == 300
    transform = dataclasses.replace(TRANSFORM, max_objects=300, mask_size=8)
    example = transform(source[1], (32, 64), np.random.default_rng(0))
    assert (example["labels"] == 0).all()
    assert make_buckets(source, (32, 64)) == (Group((0, 1, 2, 3), (32, 64)),)
