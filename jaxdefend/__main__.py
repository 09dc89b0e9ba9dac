"""jaxdefend NAME …: the same commands as python -m jaxdefend.NAME."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from jaxdefend import InputError, __version__
from jaxdefend.cli import runtime, terminal
from jaxdefend.results.progress import Report
from jaxdefend.results.text import printable

COMMANDS = {
    "audit": "is this net backdoored, and for which class? no poisoned image is needed",
    "evaluate": "clean accuracy and attack success of a net, a repaired net, and the GoodNet of both",
    "sweep": "the pruning curve of a BadNet and its repaired nets",
    "repair": "a repaired net from a BadNet and clean images",
    "detect": "whether an input carries a trigger, with thresholds from clean images",
    "predict": "the labels of single images",
    "compare": "a table of several nets, repairs and detectors",
    "report": "one page to hand on about a net and its defenses",
    "train": "nets with and without a backdoor, on synthetic faces or your own images",
}


def _help() -> str:
    lines = [f"  {name:<10}{does}" for name, does in COMMANDS.items()]
    return "\n".join(["usage: jaxdefend COMMAND …; jaxdefend COMMAND --help explains one", "", *lines])


def _without_command(arguments: Sequence[str], report: Report) -> None:
    name = arguments[0]
    if name in ("-h", "--help"):
        terminal.show(_help())
    elif name == "--version":
        terminal.show(f"jaxdefend {__version__}")
    else:
        raise InputError(f"{printable(name, 100)}: no such command; there are {', '.join(COMMANDS)}")


def main(arguments: Sequence[str | Path] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    name, *others = words or ["--help"]
    if str(name) not in COMMANDS:
        return runtime.run(_without_command, [name])
    return import_module(f"jaxdefend.{name}").main(others)


def program() -> NoReturn:
    """The console script."""
    runtime.program(main)


if __name__ == "__main__":
    program()
