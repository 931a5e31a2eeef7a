import pytest

from localmim_jax.engine.task import Evaluation
from localmim_jax.errors import ConfigError
from tests.defaults import (
    checkpoint_settings,
    log_settings,
    mesh_settings,
    optimizer_settings,
    run_settings,
    schedule_settings,
)

RATE = schedule_settings(peak_lr=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedule_settings(), "neither base_lr nor peak_lr"),
        (lambda: schedule_settings(base_lr=1e-4, peak_lr=1e-3), "both base_lr and peak_lr"),
        (lambda: schedule_settings(peak_lr=0.0), "schedule.peak_lr is 0.0; it must be above 0"),
        (lambda: schedule_settings(base_lr=float("nan")), "schedule.base_lr is nan"),
        (lambda: schedule_settings(peak_lr=1.0, kind="poly"), "schedule.kind is 'poly'"),
        (lambda: schedule_settings(peak_lr=1.0, kind="steps"), "needs at least one"),
        (lambda: schedule_settings(peak_lr=1.0, kind="steps", milestones=(9, 3)), "increasing"),
        (lambda: optimizer_settings(name="adam"), "one of adamw, lars, momentum"),
        (lambda: optimizer_settings(b2=1.0), "optimizer.b2 is 1.0"),
        (lambda: optimizer_settings(clip_norm=0.0), "optimizer.clip_norm"),
        (lambda: optimizer_settings(ema_decay=1.0), "optimizer.ema_decay"),
        (lambda: optimizer_settings(layer_decay=1.5), "at most 1"),
        (lambda: optimizer_settings(max_bad_steps=0), "optimizer.max_bad_steps"),
        (lambda: mesh_settings(data=0), "mesh.data is 0"),
        (lambda: mesh_settings(data=-1, fsdp=-1), "both -1"),
        (lambda: checkpoint_settings(keep_last=0), "checkpoint.keep_last"),
        (lambda: log_settings(every_steps=0), "log.every_steps"),
        (lambda: Evaluation("val", list, dict, dict, every_steps=-1), "val is to be evaluated every -1 steps"),
        (lambda: run_settings(RATE, seed=-1), "seed is -1"),
        (lambda: run_settings(RATE, accum_steps=0), "accum_steps"),
        (lambda: run_settings(RATE, dtype="fp16"), "model.dtype is 'fp16'"),
        (lambda: run_settings(RATE).check_batch(0, 1), "batch_size is 0"),
        (lambda: run_settings(RATE, accum_steps=3).check_batch(8, 1), "legal values: 1, 2, 4, 8"),
        (lambda: run_settings(RATE).check_batch(12, 8), "use 1, 2, 3, 4, 6, 12 devices or a batch_size divisible by 8"),
        (lambda: run_settings(RATE, accum_steps=4).check_batch(32, 16), "use 1, 2, 4, 8 devices or .* divisible by 64"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_base_rate_is_scaled_by_the_batch_and_peak_rate_is_not():
    assert schedule_settings(base_lr=2e-4).peak(2048) == pytest.approx(1.6e-3)
    assert schedule_settings(peak_lr=2e-4).peak(2048) == 2e-4


def test_checkpoint_interval_prefers_steps():
    assert checkpoint_settings(every_steps=7, every_epochs=2).interval(10) == 7
    assert checkpoint_settings(every_epochs=2.5).interval(10) == 25
    assert checkpoint_settings(every_epochs=0.01).interval(10) == 1
    assert checkpoint_settings().interval(10) == 0
