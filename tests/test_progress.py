import dataclasses
import logging

import pytest

from localmim_jax.engine.progress import announce, small_dataset
from tests.defaults import log_settings
from tests.tiny import SETTINGS, TASK, spec_for


@pytest.mark.parametrize(("first_step", "line"), [(0, "starting at step 0"), (7, "resuming from step 7")])
def test_the_announcement_says_what_will_run(caplog, first_step, line):
    settings = dataclasses.replace(SETTINGS, log=log_settings(notes="a note"))
    with caplog.at_level(logging.INFO, "absl"):
        announce(spec_for(settings=settings, devices=2), first_step)
    first, *others = [record.getMessage() for record in caplog.records]
    assert first.startswith("digits: 20 steps (0.4255 epochs) of 32 examples on 2 x cpu in 1 process(es), mesh data=2")
    assert others == [
        "4,810 parameters trained, 0 frozen; the state takes 75.2 KiB of each device",
        "learning rate: cosine, peak 0.01 (peak_lr)",
        line,
        "notes: a note",
    ]


@pytest.mark.parametrize(("examples", "times"), [(24, "85.3"), (1, "2,048"), (2047, "1")])
def test_a_training_set_smaller_than_one_batch_is_told(caplog, examples, times):
    task = dataclasses.replace(TASK, batch_size=2048, steps_per_epoch=examples / 2048)
    assert (
        f"has {examples} examples, fewer than batch_size=2048: every step reads each of them about {times} times"
        in (small_dataset(task))
    )
    small = dataclasses.replace(TASK, steps_per_epoch=24 / 32)
    with caplog.at_level(logging.WARNING, "absl"):
        announce(spec_for(small), 0)
    assert "run is 20 steps; set batch_size to 24 or less" in caplog.text


def test_one_batch_is_enough():
    assert small_dataset(dataclasses.replace(TASK, batch_size=24, steps_per_epoch=1.0)) == ""
