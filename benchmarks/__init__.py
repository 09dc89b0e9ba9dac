"""How fast jaxdefend is, against Keras and against itself: `python -m benchmarks [--quick] [--out DIR]`."""

from jaxdefend.cli.jax_setup import set_up_jax

# Before any of the scripts imports jax: they run as the commands do.
set_up_jax()
