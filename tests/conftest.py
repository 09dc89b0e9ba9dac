"""No test is decided by a clock, none takes a GPU's whole memory from others, and all compute as the commands do."""

import os

from hypothesis import settings

from jaxdefend import _command

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
_command.use_wide_vectors()

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
