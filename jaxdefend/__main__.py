"""jaxdefend NAME …: the same commands as python -m jaxdefend.NAME."""

import sys
from importlib import import_module

from jaxdefend import InputError, _command

COMMANDS = {
    "evaluate": "clean accuracy and attack success of a net, a repaired net, and the GoodNet of both",
    "sweep": "the pruning curve of a BadNet and its repaired nets",
    "repair": "a repaired net from a BadNet and clean images",
    "detect": "whether an input carries a trigger: STRIP, mask entropy, and their thresholds",
    "predict": "the labels of single images",
    "train": "nets with and without a backdoor, on faces that exist nowhere",
}


def _help() -> str:
    lines = [f"  {name:<10}{does}" for name, does in COMMANDS.items()]
    return "\n".join(["usage: jaxdefend COMMAND …; jaxdefend COMMAND --help explains one", "", *lines])


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        return _command.run(_unknown, [name])
    return import_module(f"jaxdefend.{name}").main(arguments)


def _unknown(arguments) -> None:
    raise InputError(f"{arguments[0]}: no such command; there are {', '.join(COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())
