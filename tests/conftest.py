"""No test is decided by a clock, and none takes a GPU's whole memory from the others."""

import os

from hypothesis import settings

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
