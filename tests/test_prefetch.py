import threading

import jax
import numpy as np
import pytest

from localmim_jax.engine import prefetch as prefetching
from localmim_jax.engine.mesh import batch_sharding, make_mesh
from localmim_jax.engine.prefetch import AHEAD, DevicePrefetch, hanging, interruptible
from localmim_jax.errors import DataError
from tests.defaults import mesh_settings
from tests.tiny import batches

ONE_DEVICE = make_mesh(mesh_settings(), jax.devices()[:1])


def test_batches_come_in_order_placed_and_named():
    mesh = make_mesh(mesh_settings())
    with DevicePrefetch(mesh, batches(3), 3, 8) as prefetch:
        placed = list(prefetch)
    assert [batch.step for batch in placed] == [3, 4, 5, 6, 7]
    for batch, expected in zip(placed, batches(3), strict=False):
        np.testing.assert_array_equal(batch.ids, expected["id"])
        np.testing.assert_array_equal(batch.arrays["image"], expected["image"])
        assert batch.arrays["image"].sharding == batch_sharding(mesh)
        assert "id" not in batch.arrays


def test_the_source_is_read_ahead_but_not_beyond_the_run():
    pulled = threading.Semaphore(0)

    def source():
        for batch in batches(0):
            pulled.release()
            yield batch

    with DevicePrefetch(ONE_DEVICE, source(), 0, 5) as prefetch:
        for _ in range(AHEAD):  # before anything is asked for
            assert pulled.acquire(timeout=60)
        assert len(list(prefetch)) == 5
    for _ in range(5 - AHEAD):
        assert pulled.acquire(blocking=False)
    assert not pulled.acquire(blocking=False)


def test_only_the_waiting_of_the_loop_is_measured():
    allowed = threading.Semaphore(2)

    def source():
        for batch in batches(0):
            allowed.acquire()
            yield batch

    with DevicePrefetch(ONE_DEVICE, source(), 0, 3) as prefetch:
        next(prefetch), next(prefetch)
        before = prefetch.waited
        threading.Timer(0.2, allowed.release).start()
        next(prefetch)
        assert prefetch.waited > before


def test_a_source_that_ends_early_or_fails_is_an_error():
    def failing():
        yield next(batches(0))
        raise DataError("cat.jpg is no picture")

    few = (batch for batch, _ in zip(batches(0), range(3), strict=False))
    with DevicePrefetch(ONE_DEVICE, few, 0, 5) as prefetch, pytest.raises(DataError, match="ended before step 3"):
        list(prefetch)
    with DevicePrefetch(ONE_DEVICE, failing(), 0, 5) as prefetch, pytest.raises(DataError, match="no picture"):
        list(prefetch)


@pytest.fixture
def dead_disk(monkeypatch):
    """(source whose second batch never comes, event that lets it come)."""
    monkeypatch.setattr(prefetching, "_PATIENCE", 0.2)
    come = threading.Event()

    def source():
        found = batches(0)
        yield next(found)
        come.wait()
        yield next(found)

    yield source(), come
    come.set()


def test_a_batch_that_never_comes_holds_nobody_up(dead_disk):
    source, come = dead_disk
    with DevicePrefetch(ONE_DEVICE, source, 0, 3) as prefetch:
        while not prefetch.ready(0.01):
            pass
        next(prefetch)
        assert not prefetch.ready(0.05)
        assert prefetch.waited > 0.05
    assert hanging()
    come.set()
    assert not hanging()


def test_a_batch_that_never_comes_is_given_up_on_request(dead_disk):
    source, come = dead_disk
    asked = []
    found = interruptible(source, lambda: len(asked) > 1 or asked.append(1))
    assert [batch is None for batch in found] == [False, True]
    assert len(asked) == 2
    assert hanging()
    come.set()
    assert not hanging()
    assert len(list(interruptible(iter([{"id": 1}, {"id": 2}]), lambda: False))) == 2
