"""The floors of the house: imports only point downwards, and what stands on one floor alone stays there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jaxdefend
from jaxdefend.nets.deepid import deepid

PACKAGE = Path(jaxdefend.__file__).parent
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
# From the ground; rooms on one floor do not import each other.
FLOORS = (("results",), ("datasets",), ("nets",), ("attacks", "repairs", "detectors", "audits"), ("cli", "reports"))
BELOW = {
    room: {room} | {lower for floor in FLOORS[:height] for lower in floor}
    for height, floor in enumerate(FLOORS)
    for room in floor
}


def imported(path: Path) -> set[str]:
    """What of jaxdefend a file imports: "nets.deepid", "InputError", …"""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("jaxdefend.") for name in names if name.split(".")[0] == "jaxdefend"}


def modules(*rooms: str):
    return [path for room in rooms for path in sorted((PACKAGE / room).rglob("*.py"))]


def test_every_room_has_its_floor():
    rooms = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert rooms == set(BELOW)
    assert not [path.name for path in PACKAGE.glob("_*.py") if not path.name.startswith("__")]


def test_every_room_imports_only_what_is_below_it():
    for room, below in BELOW.items():
        for path in modules(room):
            for name in imported(path):
                floor = name.split(".")[0]
                assert floor not in BELOW.keys() - below, f"{path.relative_to(PACKAGE)} imports {name}"
                assert floor not in COMMANDS, f"{path.relative_to(PACKAGE)} imports the command {name}"


def test_no_command_imports_another():
    for path in PACKAGE.glob("*.py"):
        for name in imported(path):
            assert path.stem == "__init__" or name.split(".")[0] not in COMMANDS, f"{path.name} imports {name}"


def test_the_world_outside_is_known_to_commands_alone():
    """No options, arguments, signals or prints in the library."""
    outside = re.compile(r"\bargparse\b|\bsys\.argv\b|\bsignal\.signal\b|\bos\._exit\b|(?<![\w.])print\(|[\"' ]--[a-z]")
    for path in modules(*(BELOW.keys() - {"cli"})):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = outside.search(line)
            assert found is None or "--xla" in line, f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"


def test_only_deepid_knows_its_layers():
    names = {layer.name for layer in deepid(10).layers} - {"input", "output"}
    known = re.compile(rf"[\"'](?:{'|'.join(sorted(names))})[\"']")
    for path in PACKAGE.rglob("*.py"):
        if path.name != "deepid.py":
            found = known.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.relative_to(PACKAGE)}: {found and found.group()}"


def test_the_library_waits_for_jax_until_it_is_used():
    """Neither the face, nor the commands and their manuals, nor the tables of contents import it."""
    commands = ", ".join(f"jaxdefend.{name}" for name in sorted(COMMANDS - {"__main__"}))
    code = (
        f"import sys, jaxdefend as jd, {commands}, jaxdefend.cli.methods; jd.repairs.Noise(epochs=3); "
        "jd.detectors.Persistence(); sys.exit(int('jax' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_command_does_not_hide_the_function_of_its_name():
    from importlib import import_module

    command = import_module("jaxdefend.sweep")
    assert callable(command.main)
    assert jaxdefend.sweep is import_module("jaxdefend.repairs.sweeping").sweep
