import pytest

from localmim_jax.engine.profiler import PROFILED_STEPS, Profiler


@pytest.mark.parametrize(("num_steps", "last"), [(20, 3 + PROFILED_STEPS), (5, 5)])
def test_a_trace_starts_at_its_step_and_ends_after_five_or_with_the_run(tmp_path, num_steps, last):
    waited = []
    profiler = Profiler(tmp_path / "profile", first_step=3)
    for step in range(num_steps):
        profiler.before(step)
        profiler.after(step + 1, lambda step=step: waited.append(step + 1), last=step + 1 == num_steps)
    assert waited == [last]
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_no_trace_without_a_step(tmp_path):
    profiler = Profiler(tmp_path / "profile", first_step=0)
    profiler.before(0)
    profiler.after(5, lambda: None, last=True)
    assert not (tmp_path / "profile").exists()
