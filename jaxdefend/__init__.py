"""Find, measure and remove backdoors in trained image classifiers.

The commands are the modules beside this file: `python -m jaxdefend.NAME --help`.
"""

__version__ = "0.1.0"


class InputError(Exception):
    """What a user handed in cannot be used. The message says what is wrong, where, and what to do, in one line."""
