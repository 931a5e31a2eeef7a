"""What is read at which position: every example once an epoch in training, once in an evaluation."""

import collections

import pytest

from localmim_jax.data.plan import PADDING, EvaluationPlan, Group, TrainingPlan, one_group

LANDSCAPE, PORTRAIT = Group((0, 2, 3, 5, 6), (2, 3)), Group((1, 4), (3, 2))


def test_training_takes_turns_and_loses_nothing():
    plan = TrainingPlan((LANDSCAPE, PORTRAIT), 3, seed=1)
    counts = collections.Counter()
    for step in range(70):
        places = [plan[3 * step + i] for i in range(3)]
        assert len({place.group for place in places}) == 1
        counts.update(place.index for place in places)
        for group in (LANDSCAPE, PORTRAIT):
            times = [counts[index] for index in group.members]
            assert max(times) - min(times) <= 1
    assert set(counts.values()) == {30}
    assert [plan.at(step)[0] for step in range(7)] == [0, 1, 0, 0, 0, 1, 0]


def test_one_group_is_a_shuffled_line():
    plan = TrainingPlan(one_group(10), 4, seed=1)
    epochs = [[plan[10 * epoch + i].index for i in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_training_with_more_groups_is_refused():
    with pytest.raises(ValueError, match="one or two groups, not 3"):
        TrainingPlan((LANDSCAPE, PORTRAIT, Group((7,))), 3, seed=1)


def test_an_evaluation_pads_each_group_to_whole_batches():
    plan = EvaluationPlan((LANDSCAPE, PORTRAIT, Group(range(7, 11))), 4)
    assert len(plan) == 16
    assert [(plan[i].group, plan[i].index) for i in range(16)] == [
        *((0, index) for index in (0, 2, 3, 5, 6, PADDING, PADDING, PADDING)),
        *((1, index) for index in (1, 4, PADDING, PADDING)),
        *((2, index) for index in (7, 8, 9, 10)),
    ]


def test_a_few_examples_are_taken_from_everywhere():
    assert one_group(100, 4)[0].members == (0, 25, 50, 75)
    assert one_group(7, 10)[0].members == one_group(7)[0].members == range(7)
