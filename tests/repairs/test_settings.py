"""The table of contents: what the settings of the repairs accept, and what can be reached from what chooses."""

import ast
import dataclasses
import inspect
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest
from checked import unchecked

from jaxdefend import InputError, repairs
from jaxdefend.repairs import METHODS, Grid, Iterative, Method, Noise, Prune

TABLE = METHODS | {"grid": Grid}


def with_field(name):
    return [kind for kind in TABLE.values() if any(field.name == name for field in dataclasses.fields(kind))]


@pytest.mark.parametrize("name", TABLE)
def test_every_method_is_settings_and_a_module_of_its_name(name):
    kind = TABLE[name]
    assert issubclass(kind, Method) and dataclasses.is_dataclass(kind)
    assert kind() == kind() and hash(kind()) == hash(kind())
    assert (kind.__doc__ or "").strip()
    for field in dataclasses.fields(kind):
        assert field.metadata["help"]
    module = import_module(f"jaxdefend.repairs.{name.replace('-', '_')}")
    assert list(inspect.signature(module.repair).parameters) == ["settings", "net", "clean", "run"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", 0, "epochs 0: expected at least 1"),
        ("epochs", 2.5, "epochs 2.5: expected at least 1"),
        ("learning_rate", 0.0, "learning rate 0: expected a number between 0 and 1"),
        ("learning_rate", float("nan"), "learning rate nan: expected a number between 0 and 1"),
        ("batch", 0, "batch 0: expected at least"),
        ("drop", 0, "drop 0: expected above 0, at most 100"),
        ("drop", 101, "drop 101: expected above 0, at most 100"),
        ("drop", float("nan"), "drop nan: expected"),
        ("drop", "many", "drop many: expected"),
        ("fraction", 1.5, "fraction 1.5: expected a number 0…1"),
        ("channels", -1, "channels -1: expected at least 0"),
        ("optimizer", "magic", "optimizer magic: expected adam, adamw or sgd"),
        ("b0", 0, "b0 0: expected at least 1"),
        ("learning_rates", (0.1, 2.0), "learning rates 0.1 2: expected numbers between 0 and 1"),
        ("learning_rates", (), "learning rates : expected"),
        ("fractions", (1.0,), "fractions 1: expected shares from 0 to below 1"),
    ],
)
def test_values_that_cannot_be_used(field, value, said):
    kinds = with_field(field)
    assert kinds
    for kind in kinds:
        with pytest.raises(InputError) as refused:
            unchecked(kind)(**{field: value})
        assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("name", "least"), [("distill", 4), ("noise", 2)])
def test_small_batches(name, least):
    assert METHODS[name](batch=least).batch == least
    with pytest.raises(InputError, match=f"batch {least - 1}: expected at least {least}"):
        METHODS[name](batch=least - 1)


@pytest.mark.parametrize("drop", [4, 2.5, Fraction(1, 10), None])
def test_drops(drop):
    assert Prune(drop=drop).drop == drop


def test_how_much_is_pruned_is_said_once():
    with pytest.raises(InputError, match="drop and channels: expected one of them to say how much is pruned"):
        Noise(drop=4, channels=3)
    with pytest.raises(InputError, match="channels and fraction: expected one"):
        Iterative(fraction=0.5, channels=3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("clp", {"drop": 4}), ("clp", {"epochs": 3}), ("anti", {"epochs": 3}), ("magnitude", {"drop": 4}),
     ("prune", {"epochs": 3}), ("anp", {"optimizer": "sgd"}), ("grid", {"drop": 4}), ("noise", {"b0": 3})],
)  # fmt: skip
def test_a_setting_that_a_method_does_not_have_cannot_be_given(name, settings):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        TABLE[name](**settings)


def test_settings_and_their_modules_are_read_without_jax():
    code = (
        "import sys; from jaxdefend import repairs; [kind() for kind in repairs.METHODS.values()]; "
        "sys.exit(int('jax' in sys.modules or 'numpy' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- no leak is a signature ---------------------------------------------------------------------------------------

# An inverted trigger is found on clean images.
KNOWN = {("unlearn", "trigger")}
LEAKS = ("test", "poison", "options", "namespace", "asr", "attack", "kwargs", "trigger")


def signatures(module):
    for _, function in inspect.getmembers(module, callable):
        if getattr(function, "__module__", "").startswith("jaxdefend.repairs"):
            yield function


def test_nothing_that_chooses_could_see_test_or_poisoned_images():
    """Whatever a repair is given: settings, net, clean images, a seed, where to report and where to save."""
    call = inspect.signature(Method.__call__)
    assert list(call.parameters) == ["self", "net", "clean", "seed", "progress", "saved"]
    for name in TABLE:
        module = import_module(f"jaxdefend.repairs.{name.replace('-', '_')}")
        run = inspect.signature(module.repair).parameters["run"].annotation
        assert [field for field in run._fields] == ["seed", "report", "saved"]
        for function in signatures(module):
            try:
                parameters = inspect.signature(function).parameters.values()
            except ValueError:
                continue
            for parameter in parameters:
                leaks = any(leak in parameter.name for leak in LEAKS)
                assert not leaks or (name, parameter.name) in KNOWN, f"{name}: {function.__name__}({parameter})"
                assert parameter.kind is not parameter.VAR_KEYWORD, f"{name}: {function.__name__}({parameter})"
        for field in dataclasses.fields(TABLE[name]):
            assert not any(leak in field.name for leak in LEAKS) or (name, field.name) in KNOWN


def test_no_repair_opens_a_file_or_measures():
    """What is not in its parameters does not come by an import either."""
    room = Path(repairs.__file__).parent
    for path in [room / "base.py", room / "tuning.py", *(room / f"{name.replace('-', '_')}.py" for name in TABLE)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("jaxdefend.datasets.files", "jaxdefend.repairs.measurement"), path.name
                assert "attacks" not in (node.module or ""), path.name
                assert not {"sweep", "open_images"} & {alias.name for alias in node.names}, path.name
