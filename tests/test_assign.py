import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.detection.assign import IGNORED, NEGATIVE, ROI, RPN, AssignConfig, assign, sample


@pytest.mark.parametrize(("kind", "config"), [("rpn", RPN), ("rcnn", ROI)])
@pytest.mark.parametrize("padding", [0, 5])
def test_assignment_equals_the_reference(goldens, kind, config, padding):
    golden = np.load(goldens / "detection.npz")
    truth = np.concatenate([golden["assign/gt"], np.full((padding, 4), 7.0, np.float32)])
    valid = np.arange(len(truth)) < len(golden["assign/gt"])
    found = jax.jit(lambda *arrays: assign(*arrays, config))(golden["assign/priors"], truth, valid)
    np.testing.assert_array_equal(found, golden[f"assign/{kind}/gt_index"])


def test_without_ground_truth_everything_is_negative():
    boxes = jnp.asarray([[0.0, 0.0, 9.0, 9.0]] * 4)
    assert np.all(assign(boxes, jnp.zeros((3, 4)), jnp.zeros(3, bool), RPN) == NEGATIVE)


def draw(assigned, config, usable=None, seed=0):
    assigned = jnp.asarray(assigned, jnp.int32)
    usable = jnp.ones(len(assigned), bool) if usable is None else jnp.asarray(usable)
    index, valid = sample(jax.random.key(seed), assigned, usable, config)
    return np.asarray(index), np.asarray(valid)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(40, 100, (8, 8)), (3, 100, (3, 13)), (40, 5, (8, 5)), (0, 100, (0, 16)), (0, 0, (0, 0))],
)
def test_samples_are_positives_first_up_to_their_share(positives, negatives, expected):
    config = AssignConfig(0.7, 0.3, 0.3, num_samples=16, positive_fraction=0.5)
    assigned = np.random.default_rng(1).permutation([5] * positives + [NEGATIVE] * negatives + [IGNORED] * 20)
    index, valid = draw(assigned, config)
    assert len(index) == 16
    assert len(set(index[valid])) == valid.sum()
    chosen = assigned[index[valid]]
    assert ((chosen > 0).sum(), (chosen == NEGATIVE).sum()) == expected
    np.testing.assert_array_equal(chosen > 0, np.arange(len(chosen)) < expected[0])
    np.testing.assert_array_equal(valid, np.arange(16) < sum(expected))


def test_every_box_is_drawn_sometimes_and_unusable_ones_never():
    config = AssignConfig(0.7, 0.3, 0.3, num_samples=8, positive_fraction=0.5)
    assigned, usable = np.array([1] * 10 + [NEGATIVE] * 10), np.arange(20) % 5 > 0
    drawn = {int(i) for seed in range(40) for i in np.concatenate([draw(assigned, config, usable, seed)[0]])}
    assert drawn == set(np.flatnonzero(usable))


def test_fewer_boxes_than_samples():
    index, valid = draw([1, NEGATIVE, IGNORED], RPN)
    assert len(index) == 3
    assert valid.sum() == 2
