"""How paths and the errors of other libraries are shown: in one short line."""

from jaxdefend.results.text import printable


def shown(path: object) -> str:
    """A path, or its beginning and its end."""
    return printable(path, 200)


def reason(error: BaseException) -> str:
    """What a library has to say about a file."""
    return printable(getattr(error, "strerror", None) or error, 150) or type(error).__name__
