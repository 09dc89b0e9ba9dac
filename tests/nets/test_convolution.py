"""Every form of the convolution gives what NumPy gives in float64."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxdefend.nets.convolution import (
    average_pool,
    convolve,
    convolve_relu_average,
    convolve_relu_pool,
    depthwise,
    in_blocks,
    max_pool,
)

WIDE = "--xla_cpu_prefer_vector_width=512"


@pytest.fixture(scope="module", params=[True, False], ids=["wide vectors", "as XLA chooses"])
def vectors(request):
    with pytest.MonkeyPatch.context() as patch:
        flags = os.environ.get("XLA_FLAGS", "").replace(WIDE, "")
        patch.setenv("XLA_FLAGS", f"{flags} {WIDE}" if request.param else flags)
        jax.clear_caches()
        yield
    jax.clear_caches()


def by_numpy(images, kernel, bias, pool=np.max):
    images, kernel, bias = (np.asarray(array, float) for array in (images, kernel, bias))
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[:2], axis=(1, 2))
    outputs = np.maximum(np.einsum("nijcab,abck->nijk", windows, kernel, optimize=True) + bias, 0)
    rows, columns = outputs.shape[1] // 2, outputs.shape[2] // 2
    return pool(outputs[:, : 2 * rows, : 2 * columns].reshape(len(images), rows, 2, columns, 2, -1), axis=(2, 4))


def drawn(n, size, kernel):
    rng = np.random.default_rng(n)
    arrays = rng.normal(size=(n, *size, kernel[2])), rng.normal(size=kernel), rng.normal(size=kernel[3])
    return [jnp.asarray(array, jnp.float32) for array in arrays]


DEEPID = [(4, 4, 3, 20), (3, 3, 20, 40), (3, 3, 40, 60)]


@pytest.mark.parametrize("kernel", DEEPID)
@pytest.mark.parametrize("n", [1, 15, 32])
def test_convolution_and_pool_of_deepid(vectors, kernel, n):
    arrays = drawn(n, (9, 8), kernel)
    np.testing.assert_allclose(convolve_relu_pool(*arrays), by_numpy(*arrays), rtol=1e-4, atol=1e-4)


# Written out with four outputs in a loop, with two, not at all.
@pytest.mark.parametrize("kernel", [(5, 5, 1, 16), (3, 3, 20, 8), (3, 3, 40, 8)])
@pytest.mark.parametrize("n", [1, 16])
def test_convolution_and_average(vectors, kernel, n):
    arrays = drawn(n, (9, 8), kernel)
    expected = by_numpy(*arrays, pool=np.mean)
    np.testing.assert_allclose(convolve_relu_average(*arrays), expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_convolution_and_average():
    arrays = drawn(16, (9, 8), (3, 3, 4, 6))
    found, expected = (
        jax.value_and_grad(lambda *arrays, form=form: jnp.sin(form(*arrays)).sum(), argnums=(0, 1, 2))(*arrays)
        for form in (convolve_relu_average, lambda *arrays: average_pool(jax.nn.relu(convolve(*arrays))))
    )
    assert_close(found, expected)


@pytest.mark.parametrize("n", [1, 32, 40, 96])
def test_blocks_are_the_whole(n):
    images = jnp.arange(6.0 * n).reshape(n, 2, 3)

    def compute(block):
        return {"sums": block.sum(axis=(1, 2)), "twice": 2 * block}

    assert_close(jax.jit(lambda images: in_blocks(compute, images))(images), compute(images))
    is_cut = "scan" in str(jax.make_jaxpr(lambda images: in_blocks(compute, images))(images))
    assert is_cut == (n == 96 and jax.default_backend() == "cpu")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="blocks are for CPUs")
def test_outside_of_compiled_functions_there_are_no_blocks():
    sizes = []

    def total(images):
        def compute(block):
            sizes.append(len(block))
            return block.sum(axis=1)

        return in_blocks(compute, images).sum()

    for call in (total, jax.grad(total), jax.jit(total), jax.jit(jax.grad(total))):
        call(jnp.ones((96, 2)))
    assert sizes == [96, 96, 32, 32]


@pytest.mark.parametrize("n", [1, 8, 15, 16, 17, 32])
def test_the_form_depends_on_vectors_images_and_kernel(vectors, n):
    wide = WIDE in os.environ["XLA_FLAGS"] and jax.default_backend() == "cpu"
    forms = [str(jax.make_jaxpr(convolve_relu_pool)(*drawn(n, (9, 8), kernel))) for kernel in DEEPID]
    by_xla = ["conv_general_dilated" in form for form in forms]
    narrow = not wide and n % 8 == 0 and jax.default_backend() == "cpu"
    assert by_xla == ([False, False, True] if wide and n in (15, 16, 32) else [not narrow, True, True])


@pytest.mark.parametrize("n", [1, 8, 12, 32])
def test_without_wide_vectors_narrow_kernels_are_products_of_windows(vectors, n):
    narrow = WIDE not in os.environ["XLA_FLAGS"] and jax.default_backend() == "cpu" and n in (8, 32)
    for kernel, is_narrow in {(4, 4, 3, 20): True, (5, 5, 1, 16): True, (3, 3, 3, 32): False}.items():
        arrays = drawn(n, (9, 8), kernel)
        for form, pool in ((convolve_relu_pool, np.max), (convolve_relu_average, np.mean)):
            assert ("pooled_by_eight" in str(jax.make_jaxpr(form)(*arrays))) == (narrow and is_narrow)
            np.testing.assert_allclose(form(*arrays), by_numpy(*arrays, pool=pool), rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(
    st.integers(1, 34),
    st.tuples(st.integers(5, 8), st.integers(5, 8)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)),
)
def test_convolution_and_pool_of_any_size(vectors, n, size, kernel):
    arrays = drawn(n, size, kernel)
    np.testing.assert_allclose(convolve_relu_pool(*arrays), by_numpy(*arrays), rtol=1e-4, atol=1e-4)


def test_convolution_and_pool_under_vmap(vectors):
    images, kernel, bias = drawn(16, (9, 8), (4, 4, 3, 20))
    kernels = jnp.stack([kernel, 2 * kernel])
    both = jax.vmap(convolve_relu_pool, (None, 0, None))(images, kernels, bias)
    for found, kernel in zip(both, kernels, strict=True):
        np.testing.assert_allclose(found, by_numpy(images, kernel, bias), rtol=1e-4, atol=1e-4)


def windows_by_numpy(images, size, strides, padding, dilation=(1, 1), fill=0.0):
    """(n, rows, columns, channels, height, width), padded as TensorFlow does."""
    spread = [(each - 1) * step + 1 for each, step in zip(size, dilation, strict=True)]
    if padding == "same":
        needed = [
            max((-(-side // stride) - 1) * stride + wide - side, 0)
            for side, stride, wide in zip(images.shape[1:3], strides, spread, strict=True)
        ]
        edges = [(0, 0), *((each // 2, each - each // 2) for each in needed), (0, 0)]
        images = np.pad(images, edges, constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(images, spread, axis=(1, 2))
    return found[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


FORMS = [
    ((1, 1), "same", (1, 1), 1),
    ((2, 2), "same", (1, 1), 1),
    ((2, 1), "valid", (1, 1), 2),
    ((1, 1), "valid", (2, 1), 1),
    ((1, 1), "same", (2, 2), 2),
    ((1, 1), "valid", (1, 1), 1),
]


@pytest.mark.parametrize(("strides", "padding", "dilation", "groups"), FORMS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_convolutions_of_every_form(strides, padding, dilation, groups, with_bias):
    images, kernel, bias = drawn(3, (9, 8), (3, 2, 4 // groups, 6))
    images = jnp.concatenate([images] * groups, axis=-1)
    found = convolve(images, kernel, bias if with_bias else None, strides, padding, dilation, groups)
    windows = windows_by_numpy(np.asarray(images, float), (3, 2), strides, padding, dilation)
    parts = np.split(np.asarray(kernel, float), groups, axis=-1)
    expected = [
        np.einsum("nijcab,abck->nijk", seen, part)
        for seen, part in zip(np.split(windows, groups, axis=3), parts, strict=True)
    ]
    expected = np.concatenate(expected, axis=-1) + (np.asarray(bias) if with_bias else 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("strides", "padding", "dilation", "groups"), FORMS)
def test_depthwise_convolutions(strides, padding, dilation, groups):
    images, _, _ = drawn(2, (9, 8), (1, 1, 3, 1))
    kernel, _, _ = drawn(1, (3, 2), (1, 1, 3, 2))
    kernel = jnp.reshape(kernel[0], (3, 2, 3, 1)).repeat(2, axis=-1) * jnp.array([1.0, -2.0])
    found = depthwise(images, kernel, strides, padding, dilation)
    windows = windows_by_numpy(np.asarray(images, float), (3, 2), strides, padding, dilation)
    expected = np.einsum("nijcab,abcm->nijcm", windows, np.asarray(kernel, float))
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [((2, 2), (2, 2)), ((3, 2), (2, 1)), ((1, 3), (3, 3))])
def test_pools_of_every_form(size, strides, padding):
    images, _, _ = drawn(2, (9, 8), (1, 1, 3, 1))
    windows = windows_by_numpy(np.asarray(images), size, strides, padding, fill=-np.inf)
    np.testing.assert_array_equal(max_pool(images, size, strides, padding), windows.max(axis=(4, 5)))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3)])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
def test_derivatives_are_those_of_the_other_form(strides, padding, kernel):
    arrays = drawn(2, (9, 8), (*kernel, 3, 4))

    def by_xla(images, kernel, bias):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(images, kernel, strides, padding.upper(), dimension_numbers=dimensions) + bias

    found, expected = (
        jax.grad(lambda *arrays, form=form: jnp.sin(form(*arrays)).sum(), argnums=(0, 1, 2))(*arrays)
        for form in (lambda images, kernel, bias: convolve(images, kernel, bias, strides, padding), by_xla)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def by_xla(images, kernel, bias):
    dimensions = ("NHWC", "HWIO", "NHWC")
    outputs = lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=dimensions) + bias
    return jax.nn.relu(max_pool(outputs))


POOLED = [*((kernel, size) for kernel in DEEPID for size in ((9, 8), (8, 9))), ((2, 3, 1, 5), (4, 6))]


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(("kernel", "size"), POOLED)
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 5, pytest.param(16, marks=pytest.mark.slow)])
def test_gradients_of_convolution_and_pool(kernel, size, n):
    arrays = drawn(n, size, kernel)
    found, expected = (
        jax.value_and_grad(lambda *arrays, form=form: jnp.sin(form(*arrays)).sum(), argnums=(0, 1, 2))(*arrays)
        for form in (convolve_relu_pool, by_xla)
    )
    assert_close(found, expected)


def hessian_vector_product(of, arrays, along):
    return jax.jvp(jax.grad(of, argnums=(0, 1, 2)), arrays, along)[1]


def gradient_of_gradient(of, arrays, along):
    def slope(*arrays):
        return sum(jnp.vdot(one, other) for one, other in zip(jax.grad(of, (0, 1, 2))(*arrays), along, strict=True))

    return jax.grad(slope, (0, 1, 2))(*arrays)


DERIVATIVES = {
    "jvp": lambda of, arrays, along: jax.jvp(of, arrays, along),
    "linearize": lambda of, arrays, along: jax.linearize(of, *arrays)[1](*along),
    "vjp": lambda of, arrays, along: jax.vjp(of, *arrays)[1](jnp.float32(2)),
    "jit": lambda of, arrays, along: jax.jit(jax.grad(of, (0, 1, 2)))(*arrays),
    "checkpoint": lambda of, arrays, along: jax.grad(jax.checkpoint(of), (0, 1, 2))(*arrays),
    "vmap": lambda of, arrays, along: jax.vmap(jax.grad(of, 1), (None, 0, None))(
        arrays[0], jnp.stack([arrays[1], along[1]]), arrays[2]
    ),
    "scan": lambda of, arrays, along: lax.scan(
        lambda _, kernel: (None, jax.grad(of, 1)(arrays[0], kernel, arrays[2])), None, jnp.stack([arrays[1], along[1]])
    )[1],
    "hessian-vector product": hessian_vector_product,
    "gradient of gradient": gradient_of_gradient,
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_derivatives_of_convolution_and_pool_of_every_kind(derivative):
    arrays, along = (tuple(drawn(n, (9, 8), (3, 2, 4, 6))) for n in (3, 4))
    along = (along[0][:3], *along[1:])
    found, expected = (
        DERIVATIVES[derivative](lambda *arrays, form=form: jnp.sin(form(*arrays)).sum(), arrays, along)
        for form in (convolve_relu_pool, by_xla)
    )
    assert_close(found, expected)


def test_where_several_are_largest_one_has_the_gradient():
    kernel, bias = jnp.ones((2, 2, 1, 1)), jnp.zeros(1)
    gradient = jax.grad(lambda images: convolve_relu_pool(images, kernel, bias).sum())(jnp.ones((1, 3, 3, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0].sum(), 4)
    assert set(np.unique(gradient)) == {0, 1}


def test_a_channel_of_zeros_has_no_gradient():
    images, kernel, bias = drawn(4, (9, 8), (3, 3, 4, 6))
    kernel, bias = kernel.at[..., :3].set(0), bias.at[:3].set(0)
    gradients = jax.grad(lambda *arrays: convolve_relu_pool(images, *arrays).sum(), (0, 1))(kernel, bias)
    for gradient in gradients:
        assert not gradient[..., :3].any()
        assert gradient[..., 3:].any()


def test_images_without_a_derivative_cost_none():
    images, kernel, bias = drawn(16, (9, 8), (3, 3, 20, 40))

    def products(argnums):
        slope = jax.jit(jax.grad(lambda *arrays: convolve_relu_pool(*arrays).sum(), argnums))
        return slope.lower(images, kernel, bias).compile().cost_analysis()["flops"]

    assert products((1, 2)) < 0.8 * products((0, 1, 2))
