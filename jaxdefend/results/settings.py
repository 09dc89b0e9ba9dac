"""Settings of a method: a frozen dataclass whose fields say what they mean and what they accept."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from jaxdefend import InputError
from jaxdefend.results.text import printable


def setting(
    default: Any,
    help: str,
    *,
    metavar: str = "N",
    accepts: Callable[[Any], bool] = lambda value: True,
    expected: str = "",
    shown: str = "",
) -> Any:
    """A field of a settings dataclass.

    Args:
        help: what it means, for the manual.
        accepts, expected: whether a value can be used, and in words what is expected. None is a value only where it
            is the default, and is not checked.
        shown: the default in words, where `default` itself does not say it.
    """
    told = {"help": help, "metavar": metavar, "accepts": accepts, "expected": expected, "shown": shown}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class Settings:
    """Checked when made. Raises: InputError for a value that cannot be used."""

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Real) and (as_python := getattr(value, "item", None)):
                value = as_python()
                object.__setattr__(self, each.name, value)
            if each.metadata and not (value is None and each.default is None):
                require(each.name.replace("_", " "), value, each.metadata["accepts"], each.metadata["expected"])

    def record(self) -> dict[str, Any]:
        """The settings by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def require(name: str, value: Any, accepts: Callable[[Any], bool], expected: str) -> None:
    """Raises: InputError unless the value is accepted; what cannot be compared is not."""
    try:
        accepted = accepts(value)
    except (TypeError, ValueError, ArithmeticError):
        accepted = False
    if not accepted:
        parts = value if isinstance(value, tuple) else (value,)
        shown = " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
        raise InputError(f"{name} {printable(shown)[:40]}: expected {expected}")


def whole(least: int, limit: int | None = None) -> dict[str, Any]:
    """Accepts whole numbers from `least` on, up to `limit`: for `setting(…, **whole(1))`."""

    def accepts(value: Any) -> bool:
        right_type = isinstance(value, int) and not isinstance(value, bool)
        return right_type and value >= least and (limit is None or value <= limit)

    return {"accepts": accepts, "expected": f"at least {least}" if limit is None else f"{least}…{limit}"}


def share(*, zero: bool = False, one: bool = False) -> dict[str, Any]:
    """Accepts numbers between 0 and 1; the ends where said so."""

    def accepts(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (0 < value < 1 or (zero and value == 0) or (one and value == 1))

    ends = {(False, False): "between 0 and 1", (True, True): "0…1", (True, False): "from 0 to below 1"}
    return {"accepts": accepts, "expected": f"a number {ends.get((zero, one), 'above 0, up to 1')}"}


def between(least: float, limit: float) -> dict[str, Any]:
    """Accepts numbers from `least` to `limit`."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= limit

    return {"accepts": accepts, "expected": f"a number {least:g}…{limit:g}"}


def checked_seed(seed: Any) -> int:
    """Raises: InputError unless it is a whole number that a key can be made of."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
        raise InputError(f"seed {printable(seed, 40)}: expected a whole number, 0…{2**32 - 1}")
    return int(seed)
