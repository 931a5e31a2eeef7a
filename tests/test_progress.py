import dataclasses
import logging

import pytest

from localmim_jax.engine.progress import announce
from tests.defaults import log_settings
from tests.tiny import SETTINGS, spec_for


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
