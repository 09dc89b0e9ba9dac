"""Lets the tests of this folder import its helpers: a package called `datasets` may be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
