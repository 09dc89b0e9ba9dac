"""What the backend, its vectors and the jax version ask of all that is computed."""

import os

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Float32 in full on every backend: a GPU would otherwise multiply in TF32.
PRECISION = lax.Precision.HIGHEST


def has_wide_vectors() -> bool:
    """Whether XLA was asked for vectors of 512 bits, as the commands do where the processor has them."""
    return "xla_cpu_prefer_vector_width=512" in os.environ.get("XLA_FLAGS", "")


def apart(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The same values, on a CPU in memory before anything uses them: XLA would else put both into one slower loop.

    Before jax 0.12 XLA does so across an `optimization_barrier` too, but not across a branch that it cannot decide.
    """
    if jax.default_backend() != "cpu":
        return values
    if jax.__version_info__ >= (0, 12):
        return lax.optimization_barrier(values)
    return lax.cond(lax.optimization_barrier(jnp.bool_(True)), lambda: values, lambda: 0 * values)
