"""Every form of the convolution gives what NumPy gives in float64."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import _command
from jaxdefend.nets.convolution import convolve_relu_pool

WIDE = "--xla_cpu_prefer_vector_width=512"


@pytest.fixture(scope="module", params=[True, False], ids=["wide vectors", "as XLA chooses"])
def vectors(request):
    with pytest.MonkeyPatch.context() as patch:
        flags = os.environ.get("XLA_FLAGS", "").replace(WIDE, "")
        patch.setenv("XLA_FLAGS", f"{flags} {WIDE}" if request.param else flags)
        jax.clear_caches()
        yield
    jax.clear_caches()


def by_numpy(images, kernel, bias):
    images, kernel, bias = (np.asarray(array, float) for array in (images, kernel, bias))
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[:2], axis=(1, 2))
    outputs = np.maximum(np.einsum("nijcab,abck->nijk", windows, kernel, optimize=True) + bias, 0)
    rows, columns = outputs.shape[1] // 2, outputs.shape[2] // 2
    return outputs[:, : 2 * rows, : 2 * columns].reshape(len(images), rows, 2, columns, 2, -1).max(axis=(2, 4))


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


@pytest.mark.parametrize("n", [1, 8, 15, 16, 17, 32])
def test_the_form_depends_on_vectors_images_and_kernel(vectors, n):
    wide = WIDE in os.environ["XLA_FLAGS"] and jax.default_backend() == "cpu"
    forms = [str(jax.make_jaxpr(convolve_relu_pool)(*drawn(n, (9, 8), kernel))) for kernel in DEEPID]
    by_xla = ["conv_general_dilated" in form for form in forms]
    assert by_xla == ([False, False, True] if wide and n in (15, 16, 32) else [True, True, True])


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


AVX_512 = "flags : fpu avx2 avx512f avx512dq"


@pytest.mark.parametrize(
    ("jax_version", "processor", "before", "after"),
    [
        ("0.12.1", AVX_512, "", WIDE),
        ("0.12.1", AVX_512, "--xla_a=1", f"--xla_a=1 {WIDE}"),
        ("0.12.1", AVX_512, "--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
        ("0.12.1", AVX_512, "a_file_of_flags", "a_file_of_flags"),
        ("0.12.1", "flags : fpu avx2", "--xla_a=1", "--xla_a=1"),
        ("0.12.1", None, "", ""),
        ("0.13.0", AVX_512, "", ""),
    ],
)
def test_wide_vectors_where_the_processor_has_them(tmp_path, monkeypatch, jax_version, processor, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr("importlib.metadata.version", lambda name: jax_version)
    if processor:
        (tmp_path / "cpuinfo").write_text(processor)
    _command.use_wide_vectors(tmp_path / "cpuinfo")
    assert os.environ["XLA_FLAGS"] == after
