import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from localmim_jax.detection.fpn import FPN


def maps(seed=0):
    rng = np.random.default_rng(seed)
    grids = ((10, 12), (5, 6), (3, 3), (2, 2))  # rounded up, as a Swin's are
    return tuple(jnp.asarray(rng.normal(size=(1, *grid, 2 + i)), jnp.float32) for i, grid in enumerate(grids))


def test_every_level_has_its_stride_and_sees_the_coarser_ones():
    model, given = FPN((2, 3, 4, 5), 6, dtype=jnp.float32, rngs=nnx.Rngs(0)), maps()
    levels = model(given)
    assert [x.shape[1:] for x in levels] == [(10, 12, 6), (5, 6, 6), (3, 3, 6), (2, 2, 6), (1, 1, 6)]
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])
    for changed in range(4):
        other = model(tuple(x + (i == changed) for i, x in enumerate(given)))
        moved = [bool(np.abs(np.asarray(a) - b).max() > 1e-6) for a, b in zip(levels[:4], other[:4], strict=True)]
        assert moved == [i <= changed for i in range(4)]


def test_the_sum_is_taken_before_the_output_convolution_with_nearest_neighbors():
    model, given = FPN((2, 3, 4, 5), 6, dtype=jnp.float32, rngs=nnx.Rngs(1)), maps(1)
    levels = model(given)
    lateral = [np.asarray(conv(x)) for conv, x in zip(model.lateral, given, strict=True)]
    expected = lateral[3]
    for i in (2, 1, 0):
        h, w = lateral[i].shape[1:3]
        rows, columns = np.arange(h) // 2, np.arange(w) // 2
        expected = lateral[i] + expected[:, rows][:, :, columns]
    np.testing.assert_allclose(levels[0], model.output[0](jnp.asarray(expected)), atol=1e-5)
    assert jax.tree.leaves(nnx.state(model.output[0]))[1].shape == (3, 3, 6, 6)
