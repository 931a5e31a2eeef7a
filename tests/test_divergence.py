import json

import numpy as np
import pytest

from localmim_jax.engine.divergence import DivergenceWatch
from localmim_jax.engine.prefetch import PlacedBatch
from localmim_jax.errors import Diverged


def metrics(in_a_row: int) -> dict[str, float]:
    loss = np.nan if in_a_row else 1.0
    return {"loss": loss, "norm/gradient": 2.0, "skipped": float(in_a_row > 0), "skipped_in_a_row": float(in_a_row)}


def batch(step: int) -> PlacedBatch:
    return PlacedBatch(step, {}, np.arange(10) + 100 * step)


def test_the_run_ends_at_the_last_of_too_many_bad_steps_and_only_those_in_a_row_are_recorded(tmp_path, caplog):
    watch = DivergenceWatch(tmp_path, max_bad_steps=2)
    watch.check(batch(0), metrics(1))
    watch.check(batch(1), metrics(0))
    watch.check(batch(2), metrics(1))
    assert not (tmp_path / "diverged.json").exists()
    with pytest.raises(Diverged, match=r"in 2 steps in a row, .* 4 with examples 300, .*, 307, \.\.\. \(all"):
        watch.check(batch(3), metrics(2))
    recorded = json.loads((tmp_path / "diverged.json").read_text())
    assert [(entry["step"], entry["loss"], entry["norm/gradient"]) for entry in recorded] == [
        (3, None, 2),
        (4, None, 2),
    ]
    assert recorded[0]["ids"] == list(range(200, 210))
    assert caplog.text.count("is not finite (loss nan, gradient norm 2): skipped") == 3


def test_an_excused_step_does_not_end_the_run(tmp_path):
    watch = DivergenceWatch(tmp_path, max_bad_steps=1)
    watch.check(batch(0), metrics(1) | {"skipped_in_a_row": 0.0})
