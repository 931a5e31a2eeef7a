import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.engine.in_flight import RUN_AHEAD, StepsInFlight, run_ahead_on
from localmim_jax.engine.prefetch import PlacedBatch


@pytest.mark.parametrize(("run_ahead", "finished"), [(0, 5), (2, 3)])
def test_metrics_are_read_in_order_and_late(run_ahead, finished):
    found = []
    steps = StepsInFlight(run_ahead, lambda batch, metrics: found.append((batch.step, batch.arrays, metrics)))
    for step in range(5):
        steps.add(PlacedBatch(step, {"image": jnp.zeros(3)}, np.arange(3)), {"loss": jnp.float32(step)})
    assert len(found) == finished
    steps.wait()
    assert found == [(step, {}, {"loss": float(step)}) for step in range(5)]


def test_steps_overlap_except_on_several_cpu_devices():
    assert run_ahead_on(jax.devices()[:1]) == RUN_AHEAD
    assert run_ahead_on(jax.devices()[:2]) == 0
