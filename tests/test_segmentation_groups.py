"""Whole images in batches of one shape, and training crops through the common pipeline."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data.pipeline import eval_batches, train_batches
from localmim_jax.data.shard import WHOLE, Shard
from localmim_jax.errors import DataError
from localmim_jax.segmentation.augment import SegmentationEvalTransform
from localmim_jax.segmentation.groups import make_groups
from localmim_jax.segmentation.sources import FakeMasks, MaskFolder
from tests.defaults import data_config
from tests.test_segmentation_augment import PLAIN
from tests.test_segmentation_sources import write

CONFIG = data_config(name="fake", image_size=(48, 48), batch_size=4, seed=3, num_threads=2)
EVAL = SegmentationEvalTransform((64, 32), (1.0, 0.5), 8)


@pytest.fixture
def source():
    return FakeMasks(11, 3, (48, 48), "train")  # 7 landscape, 4 portrait


def training(source, first=0, last=9, config=CONFIG, shard=WHOLE, bad_list=None):
    return list(train_batches(config, source, first, last, shard, transform=PLAIN, bad_list=bad_list))


def evaluation(source, groups, shard=WHOLE):
    return list(eval_batches(CONFIG, source, 4, shard, transform=EVAL, groups=groups))


@pytest.mark.parametrize("changes", [{"num_threads": 1}, {"prefetch_batches": 1}])
def test_training_batches_are_pure_in_seed_and_step(source, changes):
    whole = training(source)
    resumed = training(source, first=5, config=dataclasses.replace(CONFIG, **changes))
    for left, right in zip(whole[5:], resumed, strict=True):
        assert left.keys() == {"image", "mask", "id"}
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])
    other = training(source, config=dataclasses.replace(CONFIG, seed=4))
    assert any((a["mask"] != b["mask"]).any() for a, b in zip(whole, other, strict=True))


def test_hosts_share_each_training_batch(source):
    whole = training(source)
    parts = [training(source, shard=Shard(i, 2)) for i in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([half[key] for half in halves]))


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_sees_every_image_once_in_batches_of_one_shape(source, hosts):
    groups = make_groups(source, EVAL)
    parts = [evaluation(source, groups, Shard(index, hosts)) for index in range(hosts)]
    assert {len(part) for part in parts} == {3}  # two of the 7 landscape images, one of the 4 portrait ones
    seen = [i for part in parts for batch in part for i in batch["id"][batch["valid"]]]
    assert sorted(seen) == list(range(11))
    for step in zip(*parts, strict=True):
        assert len({tuple(array.shape for array in batch.values()) for batch in step}) == 1
    for batch in (batch for part in parts for batch in part):
        assert (batch["id"][~batch["valid"]] == -1).all()
        for row in np.flatnonzero(batch["valid"]):
            h, w = batch["original"][row]
            np.testing.assert_array_equal(batch["mask"][row, :h, :w], source[batch["id"][row]]["mask"])


def test_groups_hold_their_largest_mask(tmp_path):
    source = MaskFolder(str(write(tmp_path)), "training")  # 9 x 12 to 9 x 15
    groups = make_groups(source, SegmentationEvalTransform((18, 18), multiple=4))
    assert [(group.members, group.size) for group in groups] == [((1, 2, 3), (9, 15)), ((0,), (9, 12))]


def test_a_pair_that_does_not_fit_stops_evaluation_and_is_replaced_in_training(tmp_path):
    source = MaskFolder(str(write(tmp_path)), "training")
    groups = make_groups(source, EVAL)
    Image.fromarray(np.ones((3, 5), np.uint8)).save(tmp_path / "annotations/training/2.png")
    with pytest.raises(DataError, match=r"2.png: the image is 9 x 14 .* evaluation needs every image"):
        evaluation(source, groups)
    config = dataclasses.replace(CONFIG, max_bad_fraction=0.25)
    made = training(source, config=config, bad_list=tmp_path / "bad.txt")
    assert 2 not in {int(i) for batch in made for i in batch["id"]}
    assert "training/2.png" in (tmp_path / "bad.txt").read_text()
    Image.fromarray(np.full((9, 14), 9, np.uint8)).save(tmp_path / "annotations/training/2.png")
    with pytest.raises(DataError, match="has the value 9"):
        training(source, config=config)
