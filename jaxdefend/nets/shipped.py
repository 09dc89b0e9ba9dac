"""The nets that ship with jaxdefend."""

from pathlib import Path

BADNET, REPAIRED = "bd_net", "bd_net_repaired"
NAMES = (BADNET, "sunglasses_bd_net", "multi_trigger_multi_target_bd_net", "clean_net", REPAIRED)


def path_of(name: str) -> Path:
    """The file of a shipped net: in the installed package, else beside it in the source tree."""
    return _file(f"{name}.h5")


def guard() -> Path:
    """The guard of the shipped BadNet."""
    return _file(f"{BADNET}_guard.json")


def _file(name: str) -> Path:
    package = Path(__file__).parents[1]
    installed = package / "weights" / name
    return installed if installed.exists() else package.parent / "weights" / name


def name_of(model: Path) -> str | None:
    """What a shipped net is called, or None if this file is not one of them."""
    return next((name for name in NAMES if model.resolve() == path_of(name).resolve()), None)
