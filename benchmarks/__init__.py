"""How fast jaxdefend is, against Keras and against itself: `python -m benchmarks [--quick] [--out DIR]`."""

from jaxdefend import _command

# Before any of the scripts imports jax: they run as the commands do.
_command.set_up_jax()
