import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from localmim_jax.segmentation.sliding import average, labels_at, sliding_window, starts, whole_image

KERNEL = np.random.default_rng(0).normal(size=(4, 4, 3, 5)).astype(np.float32)


def scores(images):
    """A "network" of stride 4 that looks at 4 x 4 pixels and at the place in the window."""
    b, h, w, c = images.shape
    patches = images.reshape(b, h // 4, 4, w // 4, 4, c)
    place = jnp.linspace(0, 1, w // 4).reshape(1, 1, -1, 1)
    return jnp.einsum("bhiwjc,ijck->bhwk", patches, KERNEL, precision="highest") + place


def plain(image, window, stride):
    """OpenMMLab's rule with plain loops: float64 [h, w, k] of one image [h, w, c]."""
    h, w, _ = image.shape
    total, times = np.zeros((h, w, 5)), np.zeros((h, w, 1))
    for i in range(max(h - window + stride - 1, 0) // stride + 1):
        for j in range(max(w - window + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + window, h), min(j * stride + window, w)
            top, left = max(bottom - window, 0), max(right - window, 0)
            piece = np.zeros((window, window, 3), np.float32)
            piece[: bottom - top, : right - left] = image[top:bottom, left:right]
            coarse = np.asarray(scores(jnp.asarray(piece[None])))[0]
            fine = np.stack([enlarge(coarse[..., k], (window, window)) for k in range(5)], axis=-1)[
                : bottom - top, : right - left
            ]
            total[top:bottom, left:right] += fine
            times[top:bottom, left:right] += 1
    return total / times


def enlarge(values, size):
    """Bilinear, half-pixel centers, borders repeated: one output after the other."""
    out = np.empty(size)
    for y, x in np.ndindex(size):
        v = min(max((y + 0.5) * values.shape[0] / size[0] - 0.5, 0), values.shape[0] - 1)
        u = min(max((x + 0.5) * values.shape[1] / size[1] - 0.5, 0), values.shape[1] - 1)
        top, left = int(v), int(u)
        bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
        upper = values[top, left] * (1 - u + left) + values[top, right] * (u - left)
        lower = values[bottom, left] * (1 - u + left) + values[bottom, right] * (u - left)
        out[y, x] = upper * (1 - v + top) + lower * (v - top)
    return out


@pytest.mark.parametrize("size", [(29, 43), (16, 16), (11, 37)])  # odd, one window, and lower than a window
def test_windows_are_averaged_as_plain_loops_do(size):
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    found = jax.jit(lambda x: sliding_window(scores, x, 16, 11))(images)
    assert found.shape == (2, *size, 5)
    for image, own in zip(images, found, strict=True):
        np.testing.assert_allclose(own, plain(image, 16, 11), atol=2e-5, rtol=1e-5)


def test_windows_reach_both_ends():
    np.testing.assert_array_equal(starts(683, 512, 341), [0, 171])
    np.testing.assert_array_equal(starts(512, 512, 341), [0])
    np.testing.assert_array_equal(starts(2048, 512, 341), [0, 341, 682, 1023, 1364, 1536])


def test_scales_and_mirror_images_are_averaged():
    images = jnp.asarray(np.random.default_rng(2).normal(size=(1, 12, 20, 3)).astype(np.float32))
    small = images[:, ::2, ::2][:, :4, :8]

    def of_scale(x):
        return whole_image(scores, x)

    found = np.asarray(average(of_scale, (images, small), flip=True))
    expected = np.zeros((12, 20, 5))
    for x in (images, small):
        for mirrored in (False, True):
            fine = np.asarray(of_scale(x[:, :, ::-1] if mirrored else x))[0]
            fine = fine[:, ::-1] if mirrored else fine
            expected += np.stack([enlarge(fine[..., k], (12, 20)) for k in range(5)], axis=-1) / 4
    np.testing.assert_allclose(found[0], expected, atol=2e-5)
    np.testing.assert_array_equal(average(of_scale, (images,), flip=False), of_scale(images))


def test_labels_of_images_of_any_size(monkeypatch):
    monkeypatch.setattr("localmim_jax.segmentation.sliding._MAX_SCORES", 2 * 30 * 3 * 4)  # strips of four rows
    values = np.random.default_rng(3).normal(size=(2, 7, 9, 3)).astype(np.float32)
    sizes = np.array([[13, 30], [22, 5]], np.int32)
    found = np.asarray(jax.jit(lambda x, s: labels_at(x, s, (22, 30)))(values, sizes))
    assert (found.shape, found.dtype) == ((2, 22, 30), np.uint8)
    for i, (h, w) in enumerate(sizes):
        fine = np.stack([enlarge(values[i, ..., k], (h, w)) for k in range(3)], axis=-1)
        np.testing.assert_array_equal(found[i, :h, :w], fine.argmax(-1))


def test_the_loops_above_interpolate_as_pillow_does():
    values = np.random.default_rng(4).normal(size=(5, 6)).astype(np.float32)
    pillow = np.asarray(Image.fromarray(values).resize((17, 11), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(enlarge(values, (11, 17)), pillow, atol=1e-5)
