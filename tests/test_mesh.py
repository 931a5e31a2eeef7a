import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from localmim_jax.engine.mesh import abstract_batch, gather, make_mesh, place_batch, place_state, state_shardings
from localmim_jax.errors import ConfigError
from tests.defaults import mesh_settings


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (mesh_settings(), (8, 1)),
        (mesh_settings(fsdp=4), (2, 4)),
        (mesh_settings(data=4, fsdp=-1), (4, 2)),
        (mesh_settings(data=2, fsdp=4), (2, 4)),
    ],
)
def test_the_mesh_covers_all_devices(settings, shape):
    mesh = make_mesh(settings)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == shape


@pytest.mark.parametrize("settings", [mesh_settings(data=3), mesh_settings(fsdp=3), mesh_settings(fsdp=16)])
def test_a_mesh_that_does_not_cover_the_devices_is_refused(settings):
    with pytest.raises(ConfigError, match="does not cover 8 devices"):
        make_mesh(settings)


def test_large_arrays_are_split_along_their_largest_divisible_dimension():
    shapes = {"kernel": (66, 128), "tall": (513, 64), "odd": (63, 65), "small": (8, 8), "scalar": ()}
    tree = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    specs = jax.tree.map(lambda s: s.spec, state_shardings(make_mesh(mesh_settings(fsdp=4)), tree))
    assert specs == {"kernel": P(None, "fsdp"), "tall": P(None, "fsdp"), "odd": P(), "small": P(), "scalar": P()}
    whole = jax.tree.map(lambda s: s.spec, state_shardings(make_mesh(mesh_settings()), tree))
    assert set(whole.values()) == {P()}


def test_batches_are_split_over_all_devices_and_ids_stay_on_the_host():
    mesh = make_mesh(mesh_settings(fsdp=2))
    batch = {
        "image": np.arange(48, dtype=np.uint8).reshape(16, 3),
        "box": np.arange(16.0),
        "id": np.arange(16),
    }
    placed = place_batch(mesh, batch)
    assert set(placed) == {"image", "box"}
    assert placed["image"].dtype == np.uint8
    assert placed["box"].dtype == np.float32
    assert {shard.data.shape for shard in placed["image"].addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(gather(placed)["image"], batch["image"])
    for name, abstract in abstract_batch(mesh, batch).items():
        assert (abstract.shape, abstract.dtype) == (placed[name].shape, placed[name].dtype)
        assert abstract.sharding == placed[name].sharding


def test_host_arrays_are_placed_by_their_sharding():
    mesh = make_mesh(mesh_settings(fsdp=8))
    tree = {"kernel": np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)}
    placed = place_state(tree, state_shardings(mesh, tree))
    assert {shard.data.shape for shard in placed["kernel"].addressable_shards} == {(64, 16)}
    np.testing.assert_array_equal(gather(placed)["kernel"], tree["kernel"])
