import jax
import jax.numpy as jnp
import pytest

from localmim_jax.engine.flops import count_flops, model_flops, parameter_count, peak_flops


def flops(function, *shapes):
    return count_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)))


def convolution(stride, groups=1):
    def apply(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, stride, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    return apply


def transposed(x, kernel):
    return jax.lax.conv_transpose(x, kernel, (2, 2), "VALID")


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (jnp.matmul, ((3, 5), (5, 7)), 2 * 3 * 5 * 7),
        (lambda a, b: jnp.einsum("bnd,bmd->bnm", a, b), ((2, 3, 5), (2, 4, 5)), 2 * 2 * 3 * 4 * 5),
        (convolution((2, 2)), ((1, 8, 8, 3), (2, 2, 3, 6)), 2 * 16 * 6 * 2 * 2 * 3),
        (convolution((1, 1), groups=3), ((1, 8, 8, 3), (3, 3, 1, 6)), 2 * 36 * 6 * 9),
        (transposed, ((1, 7, 7, 8), (2, 2, 8, 16)), 2 * 49 * 8 * 16 * 4),
        (lambda a, b: jnp.exp(a) + b, ((9,), (9,)), 0),
    ],
)
def test_products_and_convolutions_are_counted(function, shapes, expected):
    assert flops(function, *shapes) == expected


def test_a_backward_pass_is_twice_the_forward():
    def loss(convolve):
        return lambda x, kernel: jnp.sum(jnp.square(convolve(x, kernel)))

    for convolve, shapes in (
        (convolution((2, 2)), ((1, 8, 8, 3), (2, 2, 3, 6))),
        (transposed, ((1, 7, 7, 8), (2, 2, 8, 16))),
    ):
        assert flops(jax.grad(loss(convolve), (0, 1)), *shapes) == 3 * flops(convolve, *shapes)


def test_loops_branches_and_nested_jits_are_followed():
    @jax.jit
    def product(a):
        return a @ a

    once = flops(product, (4, 4))
    assert flops(lambda a: jax.lax.scan(lambda c, _: (product(c), None), a, length=5)[0], (4, 4)) == 5 * once
    assert flops(lambda a: jax.lax.cond(a[0, 0] > 0, product, lambda a: product(product(a)), a), (4, 4)) == 2 * once


def test_recomputation_is_no_need_of_the_model():
    def loss(weights, x):
        layer = jax.checkpoint(lambda x, w: jnp.tanh(jnp.tanh(x @ w) @ w))
        for _ in range(3):
            x = layer(x, weights)
        return jnp.sum(x)

    arguments = jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.float32)
    forward = 6 * 2 * 4 * 8 * 8
    whole = jax.make_jaxpr(jax.grad(loss))(*arguments)
    assert count_flops(whole) > 3 * forward
    assert model_flops(whole, loss, *arguments) == 3 * forward

    def head_only(weights, x):
        return loss(jax.lax.stop_gradient(weights), x) + jnp.sum(x @ weights)

    whole = jax.make_jaxpr(jax.grad(head_only))(*arguments)
    assert model_flops(whole, head_only, *arguments) < 1.5 * forward


def test_known_devices_have_a_peak_for_16_bit_compute():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == pytest.approx(989.4e12)
    assert peak_flops("NVIDIA L40S", "bfloat16") == 362e12
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("NVIDIA A100-SXM4-40GB", "float32") is None
    assert peak_flops("cpu", "bfloat16") is None


def test_parameters_are_counted():
    assert parameter_count({"a": {"b": jnp.zeros((3, 4))}, "c": jax.ShapeDtypeStruct((5,), jnp.float32)}) == 17
