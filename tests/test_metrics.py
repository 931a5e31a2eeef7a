import math

import pytest

from localmim_jax.engine import metrics
from localmim_jax.engine.metrics import Meter, RunSize, duration, size

SIZE = RunSize(num_steps=100, steps_per_epoch=8.0, batch_size=64, num_devices=4, dtype="bfloat16")


class Clock:
    """Stands in for time.perf_counter, so that rates are exact."""

    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(metrics.time, "perf_counter", clock)
    return clock


def step(loss=1.0, skipped=0.0, total=0.0):
    return {"loss": loss, "loss/4": 2 * loss, "learning_rate": 0.5, "skipped": skipped, "skipped_in_a_row": skipped,
            "skipped_steps": total}  # fmt: skip


def test_a_report_averages_the_steps_since_the_last_one(clock, monkeypatch):
    monkeypatch.setattr(metrics, "peak_flops", lambda kind, dtype: 1e12 if dtype == "bfloat16" else None)
    meter = Meter(SIZE, device_hours=3.0)
    clock.now += 100  # compilation
    meter.start(flops_per_step=2e12, waited=7.0)
    for loss in (1.0, 2.0, 6.0):
        meter.add(step(loss))
    clock.now += 6
    with meter.paused():
        clock.now += 40
    report = meter.report(16, waited=8.5)
    expected = {
        "loss": 3.0,
        "loss/4": 6.0,
        "learning_rate": 0.5,
        "progress/epoch": 2.0,
        "speed/steps_per_second": 0.5,
        "speed/images_per_second": 32.0,
        "speed/data_wait": 0.25,
        "speed/teraflops": 1.0,
        "speed/peak_fraction": 0.25,
        "time/left_seconds": 84 / 0.5,
        "time/device_hours": 3.0 + 146 * 4 / 3600,
    }
    assert {name: report[name] for name in expected} == pytest.approx(expected)
    assert report["memory/host_peak_gib"] > 0.05

    meter.add(step(9.0))
    clock.now += 1
    second = meter.report(17, waited=8.5)
    assert (second["loss"], second["speed/steps_per_second"], second["speed/data_wait"]) == (9.0, 1.0, 0.0)


def test_skipped_steps_do_not_spoil_the_averages(clock):
    meter = Meter(SIZE)
    meter.start(1.0, 0.0)
    meter.add(step(2.0))
    meter.add(step(math.nan, skipped=1.0, total=5.0))
    clock.now += 1
    report = meter.report(2, 0.0)
    assert (report["loss"], report["skipped"], report["skipped_steps"]) == (2.0, 1.0, 5.0)
    meter.add(step(math.nan, skipped=1.0, total=6.0))
    assert math.isnan(meter.report(3, 0.0)["loss"])


def test_the_console_line_says_what_one_wants_to_know(clock, monkeypatch):
    monkeypatch.setattr(metrics, "peak_flops", lambda kind, dtype: 1e12)
    meter = Meter(SIZE)
    meter.start(2e12, 0.0)
    meter.add({**step(0.81234, total=2.0), "accuracy": 0.5})
    clock.now += 1
    line = meter.line(9, meter.report(9, 0.1))
    assert line == (
        "step   9/100  epoch 1.12  loss 0.8123  accuracy 0.5000  lr 5.00e-01  64 images/s  data wait 10%  50% of peak  "
        "skipped 2  1 min 31 s left"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(41.6, "42 s"), (200, "3 min 20 s"), (5 * 3600 + 181, "5 h 03 min"), (2 * 86400 + 4 * 3600 + 5, "2 d 04 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (77000, "75.2 KiB"), (3 * 2**30, "3 GiB"), (2**21, "2 MiB")])
def test_sizes(count, text):
    assert size(count) == text
