"""The floors of the house: imports only point downwards."""

import ast
import subprocess
import sys
from pathlib import Path

import jaxdefend

PACKAGE = Path(jaxdefend.__file__).parent
COMMANDS = {path.stem for path in PACKAGE.glob("[a-z]*.py")} | {
    "__main__",
    "_command",
    "_detecting",
    "_guards",
    "_inputs",
    "_measuring",
    "_repairing",
}
BELOW = {
    "results": {"results"},
    "nets": {"results", "nets"},
    "datasets": {"results", "datasets"},
    "attacks": {"results", "nets", "datasets", "attacks"},
    "defenses": {"results", "nets", "datasets", "defenses"},
}


def imported(path: Path) -> set[str]:
    """What of jaxdefend a file imports: "nets.deepid", "InputError", …"""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("jaxdefend.") for name in names if name.split(".")[0] == "jaxdefend"}


def test_every_room_imports_only_what_is_below_it():
    for room, below in BELOW.items():
        for path in (PACKAGE / room).glob("*.py"):
            for name in imported(path) - {"InputError", "jaxdefend"}:
                assert name.split(".")[0] in below, f"{path.relative_to(PACKAGE)} imports {name}"


def test_no_command_imports_another():
    for path in PACKAGE.glob("[a-z]*.py"):
        for name in imported(path) - {"_command", "_detecting", "_guards", "_inputs", "_measuring", "_repairing"}:
            assert name.split(".")[0] not in COMMANDS, f"{path.name} imports {name}"


def test_help_does_not_wait_for_jax():
    commands = "jaxdefend.sweep, jaxdefend.predict, jaxdefend.evaluate, jaxdefend.detect"
    code = f"import sys, {commands}; sys.exit(int('jax' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
