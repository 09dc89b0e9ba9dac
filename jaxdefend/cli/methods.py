"""Settings dataclasses as options: a method's options, its lines in the manual and its errors come from its fields."""

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from fractions import Fraction
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxdefend import InputError
from jaxdefend.cli import arguments

# Name of the method to its settings dataclass.
Table = Mapping[str, type]


def options_of(table: Table) -> dict[str, dict[str, Field]]:
    """Every option of the methods: {field's name: {method: its field}}."""
    found: dict[str, dict[str, Field]] = {}
    for method, settings in table.items():
        for each in fields(settings):
            if each.metadata:
                found.setdefault(each.name, {})[method] = each
    return found


def add_options(parser: argparse.ArgumentParser, table: Table, *, leave_out: Iterable[str] = ()) -> None:
    """The union of the methods' fields as options. What is not given stays None."""
    for name, by_method in options_of(table).items():
        if name not in leave_out:
            method, each = next(iter(by_method.items()))
            kind = get_type_hints(table[method])[name]
            parser.add_argument(arguments.option(name), dest=name, help=_help(table, by_method), **_parsing(kind, each))


def _parsing(kind: Any, each: Field) -> dict[str, Any]:
    """What argparse needs to know about the values of a field."""
    metavar = each.metadata["metavar"]
    if "parse" in each.metadata and each.metadata["parse"] is not None:
        return {"type": _parsed_by(each.metadata["parse"]), "metavar": metavar}
    kinds = [part for part in _parts(kind) if part is not type(None)]
    if any(get_origin(part) is tuple for part in kinds):
        inner = get_args(next(part for part in kinds if get_origin(part) is tuple))[0]
        return {"type": _type(inner), "nargs": "+", "metavar": metavar}
    if any(get_origin(part) is Literal for part in kinds):
        return {"choices": [choice for part in kinds for choice in get_args(part)]}
    if kinds == [bool]:
        return {"action": argparse.BooleanOptionalAction, "default": None}
    # Percentage points are exact where a Fraction is one of the types.
    return {"type": _type(Fraction if Fraction in kinds else kinds[0]), "metavar": metavar}


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _type(kind: type) -> Callable[[str], Any]:
    return {int: arguments.integer, float: arguments.real, Fraction: arguments.points}.get(kind, str)


def _parsed_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except (InputError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _help(table: Table, by_method: Mapping[str, Field]) -> str:
    """What the option means, who reads it, and its default in each."""
    meanings: dict[str, list[str]] = {}
    defaults: dict[str, list[str]] = {}
    for method, each in by_method.items():
        meanings.setdefault(each.metadata["help"], []).append(method)
        defaults.setdefault(_default(each), []).append(method)
    common = max(meanings, key=lambda meaning: len(meanings[meaning]))
    told = [common, *(f"{', '.join(who)}: {what}" for what, who in meanings.items() if what != common)]
    usual = max(defaults, key=lambda value: len(defaults[value]))
    # The usual default without names, then the exceptions.
    others = [f"{', '.join(who)} {value}" for value, who in defaults.items() if value != usual]
    told.append(f"(default: {'; '.join([usual, *others])})")
    without = [method for method in table if method not in by_method]
    if without:
        who = f"for {', '.join(by_method)}" if len(by_method) <= len(without) else f"not for {', '.join(without)}"
        told[0] = f"{told[0]}; {who}"
    return " ".join([*("; ".join(told[:-1]), told[-1])]).replace("%", "%%")


def _default(each: Field) -> str:
    if each.metadata.get("shown"):
        return each.metadata["shown"]
    if isinstance(each.default, tuple):
        return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in each.default)
    return f"{each.default:g}" if isinstance(each.default, float) else str(each.default)


def manual(table: Table, indent: int = 2) -> str:
    """The list of methods for the manual, from the docstrings: each without its sources."""
    width = max(map(len, table)) + 2
    lines = []
    for name, settings in table.items():
        text = inspect.cleandoc(settings.__doc__ or "").split("\n\n")[0]
        text = re.sub(r"`([\w-]+)`", lambda found: _as_option(found[1], table), " ".join(text.split()))
        lines.append(
            textwrap.fill(
                text,
                width=118,
                initial_indent=" " * indent + name.ljust(width),
                subsequent_indent=" " * (indent + width),
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def _as_option(name: str, table: Table) -> str:
    return arguments.option(name) if name in options_of(table) else name


def given(options: argparse.Namespace, table: Table) -> dict[str, Any]:
    """The fields that the command line sets."""
    values = {name: getattr(options, name, None) for name in options_of(table)}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None
    }


def chosen(options: argparse.Namespace, table: Table, *methods: str) -> dict[str, Any]:
    """The settings of these methods of the table, from the options given.

    Raises: InputError for a value that cannot be used, or an option that none of them reads.
    """
    values, known = given(options, table), options_of(table)
    for name in values:
        if not set(methods) & set(known[name]):
            raise InputError(_unread(name, methods, list(known[name])))
    with named_as_options(table):
        return {
            method: table[method](**{name: value for name, value in values.items() if method in known[name]})
            for method in methods
        }


def _unread(name: str, methods: tuple[str, ...], readers: list[str]) -> str:
    who = " and ".join(methods)
    some = ", ".join([*readers[:2], *("…" for _ in readers[2:3])])
    return (
        f"{arguments.option(name)}: {who} {'does' if len(methods) == 1 else 'do'} not read it; leave it out ({some} "
        f"{'does' if len(readers) == 1 else 'do'})"
    )


@contextmanager
def named_as_options(table: Table) -> Iterator[None]:
    """Errors that begin with a field's name in words begin with the option: "learning rate 0: …"."""
    with arguments.options_named(options_of(table)):
        yield
