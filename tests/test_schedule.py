import json

import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.engine.schedule import make_schedule
from localmim_jax.errors import ConfigError
from tests.defaults import schedule_settings


def rates(settings, num_steps, batch_size=256, steps_per_epoch=1.0):
    schedule = make_schedule(settings, batch_size, num_steps, steps_per_epoch)
    return np.asarray(schedule(jnp.arange(num_steps)))


@pytest.mark.parametrize("recipe", ["vit_b_pretrain_100", "swin_b_pretrain_400", "vit_b_finetune"])
def test_cosine_equals_the_release(goldens, recipe):
    golden = json.loads((goldens / "schedules.json").read_text())[recipe]
    args = golden["args"]
    settings = schedule_settings(
        base_lr=args["lr"] / 8, min_lr=args["min_lr"], warmup_epochs=args["warmup_epochs"], kind="cosine"
    )
    found = rates(settings, 200, batch_size=2048, steps_per_epoch=200 / args["epochs"])
    np.testing.assert_allclose(found, golden["lr"], rtol=1e-5, atol=1e-12)


def test_linear_warms_up_from_a_millionth_and_ends_at_zero():
    """mmcv's "poly" of power 1 with "linear" warm-up, written out."""
    peak, warmup, total = 4e-4, 15, 160
    found = rates(schedule_settings(kind="linear", peak_lr=peak, warmup_steps=warmup, warmup_lr=peak * 1e-6), total)
    step = np.arange(total)
    regular = peak * (1 - step / total)
    warm = 1 - (1 - step / warmup) * (1 - 1e-6)
    np.testing.assert_allclose(found, np.where(step < warmup, regular * warm, regular), rtol=1e-5)


def test_steps_fall_tenfold_at_each_milestone():
    found = rates(schedule_settings(kind="steps", peak_lr=1.0, warmup_steps=2, milestones=(5, 8)), 10)
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_warmup_starts_at_its_rate_and_steps_win_over_epochs():
    settings = schedule_settings(peak_lr=1.0, warmup_lr=0.2, warmup_epochs=7, warmup_steps=4)
    np.testing.assert_allclose(rates(settings, 100)[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert rates(schedule_settings(peak_lr=1.0), 10)[0] == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (schedule_settings(peak_lr=1.0, warmup_steps=10), "warm-up of 10 steps does not fit in a run of 10"),
        (schedule_settings(peak_lr=1.0, min_lr=2.0), "must not exceed the peak"),
        (schedule_settings(peak_lr=1.0, kind="steps", milestones=(10,)), "milestone 10 lies beyond"),
    ],
)
def test_schedules_that_do_not_fit_the_run_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        rates(settings, 10)
