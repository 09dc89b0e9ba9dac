"""Settings of methods: what their fields accept."""

from dataclasses import dataclass, fields, replace
from fractions import Fraction

import pytest

from jaxdefend import InputError
from jaxdefend.results.settings import Settings, setting, share, whole


@dataclass(frozen=True)
class Toy(Settings):
    masks: int = setting(5, "masks per image", **whole(1, 10))
    batch: int = setting(8, "images per step", **whole(2))
    keep: float = setting(0.5, "share kept", metavar="P", **share())
    fraction: float | None = setting(None, "which part", **share(zero=True, one=True), shown="all")
    rates: tuple[float, ...] = setting(
        (0.5,), "rates", accepts=lambda rates: all(0 < rate < 1 for rate in rates), expected="between 0 and 1"
    )
    free: object = setting("", "anything")


def test_the_record_is_the_settings_by_name():
    assert Toy(masks=3).record() == {
        "masks": 3,
        "batch": 8,
        "keep": 0.5,
        "fraction": None,
        "rates": (0.5,),
        "free": "",
    }


def test_fields_say_what_they_mean():
    of = {field.name: field.metadata for field in fields(Toy)}
    assert of["keep"]["help"] == "share kept" and of["keep"]["metavar"] == "P"
    assert of["masks"]["metavar"] == "N" and of["fraction"]["shown"] == "all"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("masks", 0, "masks 0: expected 1…10"),
        ("masks", 11, "masks 11: expected 1…10"),
        ("masks", 2.0, "masks 2: expected"),
        ("masks", True, "masks True: expected"),
        ("masks", "3", "masks 3: expected"),
        ("masks", None, "masks None: expected"),
        ("batch", 1, "batch 1: expected at least 2"),
        ("keep", 0, "keep 0: expected a number between 0 and 1"),
        ("keep", 1.0, "keep 1: expected a number between 0 and 1"),
        ("keep", float("nan"), "keep nan: expected"),
        ("keep", "x" * 200, f"keep {'x' * 40}: expected"),
        ("keep", [0.5], "keep [0.5]: expected"),
        ("keep", "a\nb\x1b", "keep a\\nb\\x1b: expected"),
        ("fraction", 1.5, "fraction 1.5: expected a number 0…1"),
        ("rates", (0.5, 2.0), "rates 0.5 2: expected between 0 and 1"),
        ("rates", 3, "rates 3: expected"),
    ],
)
def test_what_is_not_accepted(field, value, said):
    with pytest.raises(InputError) as refused:
        Toy(**{field: value})
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("field", "value"), [("fraction", 0), ("fraction", 1), ("fraction", None), ("masks", 10)])
def test_what_is_accepted(field, value):
    assert getattr(Toy(**{field: value}), field) == value


def test_settings_are_frozen_and_checked_when_they_are_changed():
    with pytest.raises(AttributeError):
        Toy().masks = 3
    with pytest.raises(InputError, match="masks 0"):
        replace(Toy(), masks=0)


def test_a_name_of_several_words_is_told_in_words():
    @dataclass(frozen=True)
    class Slow(Settings):
        learning_rate: Fraction | float = setting(0.5, "the highest", **share())  # noqa: RUF009

    with pytest.raises(InputError, match=r"^learning rate 2: "):
        Slow(learning_rate=2.0)
