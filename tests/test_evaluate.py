import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.engine.evaluate import Evaluator
from localmim_jax.engine.task import Evaluation
from localmim_jax.errors import DataError
from localmim_jax.params import merge
from tests.tiny import DIGITS, TASK, settings_with_optimizer, spec_for


class Accuracy:
    """Counts right answers and remembers which examples it saw."""

    def __init__(self):
        self.right, self.ids = [], []

    def update(self, outputs, batch):
        assert len(outputs["logits"]) == len(batch["label"]) == len(batch["valid"]) == batch["valid"].sum()
        self.right += list(outputs["logits"].argmax(axis=1) == batch["label"])
        self.ids += list(batch["id"])

    def compute(self):
        return {"accuracy": float(np.mean(self.right)), "examples": len(self.ids), "distinct": len(set(self.ids))}


def source(count, batch_size, with_valid=False):
    """Digits `1500...`, the last batch short or padded with another example marked as invalid."""

    def batches():
        for start in range(0, count, batch_size):
            ids = np.arange(start, min(start + batch_size, count))
            missing = batch_size - len(ids) if with_valid else 0
            rows = 1500 + np.concatenate([ids, np.zeros(missing, int)])
            batch = {"image": DIGITS.data[rows].astype(np.float32), "label": DIGITS.target[rows], "id": rows}
            if with_valid:
                batch["valid"] = np.arange(batch_size) < len(ids)
            yield batch

    return batches


def predict(model, batch):
    assert "id" not in batch
    return {"logits": model(batch["image"] / 16)}


def evaluation(batches, **more):
    return Evaluation("test", batches, predict, Accuracy, **more)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(("count", "batch_size", "with_valid"), [(50, 50, False), (61, 7, False), (61, 20, True)])
def test_every_example_counts_once(devices, count, batch_size, with_valid):
    spec = spec_for(devices=devices)
    state = spec.create()
    found = Evaluator(evaluation(source(count, batch_size, with_valid)), spec)(state)
    model = merge(spec.graphdef, jax.device_get(state["params"]))
    pixels, labels = DIGITS.data[1500 : 1500 + count] / 16, DIGITS.target[1500 : 1500 + count]
    expected = np.mean(np.asarray(model(jnp.asarray(pixels, jnp.float32))).argmax(axis=1) == labels)
    assert found == {"test/accuracy": expected, "test/examples": count, "test/distinct": count}


def test_prediction_is_compiled_once():
    traces = []

    def counting(model, batch):
        traces.append(batch["image"].shape)
        return predict(model, batch)

    spec = spec_for(devices=4)
    evaluator = Evaluator(dataclasses.replace(evaluation(source(61, 7)), predict=counting), spec)
    state = spec.create()
    evaluator(state), evaluator(state)
    assert traces == [(8, 64)]


def test_the_moving_average_is_what_is_evaluated():
    spec = spec_for(settings=settings_with_optimizer(ema_decay=0.5))
    state = spec.create()
    evaluator = Evaluator(evaluation(source(50, 50)), spec)
    before = evaluator(state)
    assert evaluator({**state, "params": jax.tree.map(jnp.zeros_like, state["params"])}) == before
    assert evaluator({**state, "ema": jax.tree.map(jnp.zeros_like, state["ema"])}) != before


def test_when_it_is_due_and_what_it_scores():
    spec = spec_for()
    always = Evaluator(evaluation(source(9, 9), every_steps=5, at_start=True, best="accuracy"), spec)
    assert [step for step in range(13) if always.due(step, 12)] == [0, 5, 10, 12]
    only_end = Evaluator(evaluation(source(9, 9)), spec)
    assert [step for step in range(13) if only_end.due(step, 12)] == [12]
    assert always.score({"test/accuracy": 0.25}) == 0.25
    assert only_end.score({"test/accuracy": 0.25}) is None


def test_it_can_be_given_up_between_batches():
    answers = iter([False, True])
    spec = spec_for()
    assert Evaluator(evaluation(source(50, 10)), spec)(spec.create(), lambda: next(answers)) is None
    assert next(answers, "asked twice") == "asked twice"


def test_no_examples_and_growing_batches_are_refused():
    spec = spec_for(TASK)
    with pytest.raises(DataError, match="evaluation test: there is no example"):
        Evaluator(evaluation(source(0, 5)), spec)(spec.create())

    def growing():
        yield from source(5, 5)()
        yield from source(6, 6)()

    with pytest.raises(DataError, match="a batch of 6 examples after a smaller first one"):
        Evaluator(evaluation(growing), spec)(spec.create())
