"""Guards from files: of this version and the one before; what is refused, and how."""

import dataclasses
import json
import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from helpers import write_official
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import small_net, small_pixels

import jaxdefend as jd
from jaxdefend import InputError, detectors
from jaxdefend.detectors import DETECTORS, Both, GoodNet, Masks, Persistence, Strip, calibrate, guard_files
from jaxdefend.detectors.guards import VERSION, Guard
from jaxdefend.nets import shipped

CLEAN = small_pixels(60, 1)


def refused(path, net):
    """The message of the InputError."""
    with pytest.raises(InputError) as error:
        Guard.load(path, net)
    said = str(error.value)
    assert said.isprintable() and len(said) <= 500
    return said


def test_a_guard_of_another_net_or_scale(guard_of, place, net):
    _, folder = guard_of("persistence")
    said = refused(folder / "guard.json", jd.load_net(place / "other.h5"))
    assert "made for another net" in said and "detect calibrate" in said
    assert "does not come from a file" in refused(folder / "guard.json", small_net(1))
    said = refused(folder / "guard.json", net.with_input_scale("raw"))
    assert "made for the input scale unit, the net runs on raw" in said


def test_version_1_is_refused_with_the_command_that_makes_a_new_one(guard_of, net, tmp_path):
    record = guard_of("persistence")[0].record()
    for version in (1, 4, "2", None, [[]]):
        (tmp_path / "guard.json").write_text(json.dumps(record | {"guard": version}))
        said = refused(tmp_path / "guard.json", net)
        assert f"guard version {version}, expected {VERSION}" in said
        assert "make it again with python -m jaxdefend.detect calibrate" in said


def of_version_2(record):
    """The same guard as the version before wrote it: one set of settings for all detectors."""
    weights = {"image": 0.5, "overlay": 0.25, "saturating": False}
    return {key: value for key, value in record.items() if key != "seed"} | {
        "guard": 2,
        "settings": {"seed": 7, "masks": 6, "keep": 0.4, "keep_few": 0.2, "overlays": 5, "blend": weights},
        "detectors": {
            name: {key: value for key, value in block.items() if key != "settings"}
            for name, block in record["detectors"].items()
        },
    }


def test_a_guard_of_version_2_gives_the_same_verdicts(net, tmp_path):
    detector = Both(masks=6, overlays=5, blend="0.5+0.25")
    guard = calibrate([detector, Persistence(masks=6)], net, CLEAN, frr=0.1, seed=7)
    guard.save(tmp_path)
    record = of_version_2(json.loads((tmp_path / "guard.json").read_text()))
    (tmp_path / "guard.json").write_text(json.dumps(record))
    again = Guard.load(tmp_path / "guard.json", net)
    assert again.detectors["both"].detector == detector
    assert again.detectors["persistence"].detector == Persistence(masks=6)
    np.testing.assert_array_equal(again(CLEAN).scores, guard(CLEAN).scores)
    np.testing.assert_array_equal(again(CLEAN).rejected, guard(CLEAN).rejected)
    # Saved again it is of this version.
    again.save(tmp_path / "again")
    assert Guard.load(tmp_path / "again" / "guard.json", net).record() == guard.record()


@pytest.mark.parametrize(
    ("weights", "blend"), [((1.0, 1.0, False), "sum"), ((1, 1, True), "saturating"), ((1 / 3, 0.1, False), None)]
)
def test_blends_of_version_2(guard_of, net, tmp_path, weights, blend):
    _, folder = guard_of("strip")
    record = of_version_2(json.loads((folder / "guard.json").read_text()))
    record["settings"]["blend"] = dict(zip(("image", "overlay", "saturating"), weights, strict=True))
    (tmp_path / "guard.json").write_text(json.dumps(record))
    (tmp_path / "overlays.h5").write_bytes((folder / "overlays.h5").read_bytes())
    found = Guard.load(tmp_path / "guard.json", net).detectors["strip"].detector.blend
    if blend:
        assert found == blend
    else:
        assert detectors.blend_of(found) == detectors.Blend(*weights)


def test_the_shipped_guard_is_of_version_2_and_is_read():
    record = json.loads(shipped.guard().read_text())
    assert record["guard"] == 2
    guard = Guard.load(shipped.guard(), jd.load_net("bd_net"))
    assert guard.default == "persistence" and guard.threshold == record["threshold"]
    assert guard.detectors["persistence"].detector == Persistence()


def test_a_new_field_of_one_detector_does_not_invalidate_the_guards_of_another(guard_of, net, monkeypatch, place):
    made = {name: Guard.load(guard_of(name)[1] / "guard.json", net) for name in ("persistence", "masks")}

    @dataclasses.dataclass(frozen=True)
    class Sharper(Masks):
        sharpness: float = detectors.setting(2.0, "how sharp", metavar="S")

    monkeypatch.setitem(DETECTORS, "masks", Sharper)
    again = Guard.load(place / "persistence" / "guard.json", net)
    assert again.record() == made["persistence"].record()
    np.testing.assert_array_equal(again(CLEAN[:5]).scores, made["persistence"](CLEAN[:5]).scores)
    # Nor does it those of its own, where the default stands for what was not there.
    own = Guard.load(place / "masks" / "guard.json", net)
    assert own.detectors["masks"].detector == Sharper(masks=6)
    assert own.threshold == made["masks"].threshold


@pytest.mark.parametrize("name", ["strip", "both"])
def test_overlays_must_be_there_as_they_were(guard_of, net, name, tmp_path):
    _, folder = guard_of(name)
    (tmp_path / "guard.json").write_bytes((folder / "guard.json").read_bytes())
    assert "overlays.h5" in refused(tmp_path / "guard.json", net)
    write_official(tmp_path / "overlays.h5", small_pixels(60, 9), np.zeros(60), "uint8")
    assert "not the overlays that the guard was made with" in refused(tmp_path / "guard.json", net)
    (tmp_path / "overlays.h5").write_bytes(b"not HDF5")
    assert "overlays.h5" in refused(tmp_path / "guard.json", net)
    whole = (folder / "overlays.h5").read_bytes()
    (tmp_path / "overlays.h5").write_bytes(whole[: len(whole) // 2])
    assert "overlays.h5" in refused(tmp_path / "guard.json", net)
    (tmp_path / "overlays.h5").unlink()
    os.mkfifo(tmp_path / "overlays.h5")
    assert "overlays.h5" in refused(tmp_path / "guard.json", net)


def special_files(folder: Path):
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "loop.json").symlink_to(folder / "loop.json")
    (folder / "empty.json").write_text("")
    (folder / "latin.json").write_bytes('{"guard": 3, "x": "é"}'.encode("latin-1"))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "deep object.json").write_text('{"guard":' * 60_000)
    (folder / "large.json").write_text('{"guard": 3, "x": "' + "x" * 2**21 + '"}')
    (folder / "array.json").write_text("[3]")
    (folder / "number.json").write_text("3")
    (folder / "digits.json").write_text('{"guard": ' + "9" * 100_000 + "}")
    (folder / "nul.json").write_bytes(b"\x00" * 100)
    (folder / "bell\a\n.json").write_text("{")
    (folder / f"{'long ' * 40}.json").write_text("{}")
    return [*sorted(folder.iterdir()), folder / "missing.json", Path("/dev/zero"), Path("/dev/null"), folder / "a\x00b"]


def test_files_that_are_not_guards(tmp_path, net):
    for path in special_files(tmp_path):
        said = refused(path, net)
        assert "detect calibrate" in said, path
        assert guard_files.input_scale_of(path) is None


@pytest.mark.parametrize("depth", [100, 400, 700, 900, 950, 980, 990, 2000])
@pytest.mark.parametrize("key", ["guard", "input_scale", "fit", "detector", "overlays_file", "x"])
def test_deeply_nested_values(guard_of, net, tmp_path, depth, key):
    record = guard_of("strip")[0].record() | json.loads((guard_of("strip")[1] / "guard.json").read_text())
    text = json.dumps(record | {key: "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    (tmp_path / "guard.json").write_text(text)
    (tmp_path / "overlays.h5").write_bytes((guard_of("strip")[1] / "overlays.h5").read_bytes())
    if key == "x" and depth < 900:
        Guard.load(tmp_path / "guard.json", net)
    else:
        try:
            Guard.load(tmp_path / "guard.json", net)
        except InputError as error:
            assert str(error).isprintable() and len(str(error)) <= 500
        else:
            assert key == "x"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record | {"guard": 99},
        lambda record: {key: value for key, value in record.items() if key != "settings"},
        lambda record: record | {"detector": "magic"},
        lambda record: record | {"detectors": {"persistence": {"threshold": 0.0}}},
        lambda record: record | {"settings": record["settings"] | {"masks": 10**9}},
        lambda record: record | {"settings": record["settings"] | {"seed": "0"}},
        lambda record: record | {"settings": {k: v for k, v in record["settings"].items() if k != "keep_few"}},
        lambda record: record | {"clean": {name: {"mean": float("nan"), "std": 1.0} for name in record["clean"]}},
        lambda record: record | {"clean": {name: {"mean": 0.0, "std": 0.0} for name in record["clean"]}},
        lambda record: record | {"clean": {name: {"mean": "x", "std": 1.0} for name in record["clean"]}},
        lambda record: record | {"clean": {"few_entropy": record["clean"]["few_entropy"]}},
        lambda record: (
            record | {"detectors": {n: b | {"threshold": float("nan")} for n, b in record["detectors"].items()}}
        ),
        lambda record: record | {"threshold": record["threshold"] + 1},
        lambda record: record | {"fit": ["conformal"]},
        lambda record: record | {"detectors": {"persistence": {"threshold": "low"}}},
        lambda record: record | {"overlays_file": "../../secrets.h5", "detectors": {"strip": {"threshold": 0.0}}},
        lambda record: [record],
    ],
)
def test_spoiled_guards_of_version_2(guard_of, net, tmp_path, spoil):
    record = of_version_2(json.loads((guard_of("persistence")[1] / "guard.json").read_text()))
    (tmp_path / "guard.json").write_text(json.dumps(record))
    Guard.load(tmp_path / "guard.json", net)
    (tmp_path / "guard.json").write_text(json.dumps(spoil(record)))
    said = refused(tmp_path / "guard.json", net)
    assert "guard.json" in said and "detect calibrate" in said


@pytest.mark.parametrize("name", ["persistence", "masks", "strip", "both"])
def test_a_guard_that_could_reject_nothing_is_refused(guard_of, net, tmp_path, name):
    _, folder = guard_of(name)
    record = json.loads((folder / "guard.json").read_text())
    if (folder / "overlays.h5").exists():
        (tmp_path / "overlays.h5").write_bytes((folder / "overlays.h5").read_bytes())
    block = record["detectors"][name]
    block["threshold"] = block["levels"][0]["threshold"] = record["threshold"] = 999_999.0
    (tmp_path / "guard.json").write_text(json.dumps(record))
    assert f"{name}: a threshold that no score exceeds" in refused(tmp_path / "guard.json", net)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("persistence", "keep", 1e-9),
        ("persistence", "keep", 0.9999),
        ("masks", "masks", 0),
        ("strip", "overlays", 10**6),
        ("strip", "blend", "0+1"),
    ],
)
def test_settings_of_a_guard_are_checked_as_those_of_a_detector(guard_of, net, tmp_path, name, setting, value):
    record = json.loads((guard_of(name)[1] / "guard.json").read_text())
    record["detectors"][name]["settings"][setting] = value
    (tmp_path / "guard.json").write_text(json.dumps(record))
    said = refused(tmp_path / "guard.json", net)
    assert f"{setting} " in said and "expected" in said and "detect calibrate" in said


def test_an_overlays_file_of_another_name_is_not_opened(guard_of, net, tmp_path):
    record = json.loads((guard_of("strip")[1] / "guard.json").read_text())
    (tmp_path / "guard.json").write_text(json.dumps(record | {"overlays_file": "../../secrets.h5"}))
    assert "names no overlays for STRIP" in refused(tmp_path / "guard.json", net)


# What stands in place of a value.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 0, -1, 10**400, 2**63, 0.5, 1e-320]),
    st.sampled_from(["", "x" * 5000, "\x1b[31m\n", "\ud800", "顔", "NaN", "../../x", "persistence"]),
    st.recursive(st.just("x"), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("x"), inner)),
    st.integers(60, 300).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def damaged(record, data):
    """The record with a value replaced, left out, or called otherwise."""
    record = json.loads(json.dumps(record))
    *way, last = data.draw(st.sampled_from([path for path in places(record) if path]))
    holder = record
    for key in way:
        holder = holder[key]
    match data.draw(st.sampled_from(["replace", "drop", "rename"])):
        case "replace":
            holder[last] = data.draw(VALUES)
        case "drop":
            del holder[last]
        case "rename" if isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["x", "", "\n" * 30, "y" * 3000, "strip", "masks"]))] = holder.pop(last)
    return record


numbers = count()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), name=st.sampled_from(["persistence", "both"]), old=st.booleans(), cut=st.integers(0, 9))
def test_damaged_guards_are_read_or_refused_in_one_line(guard_of, net, place, data, name, old, cut):
    _, folder = guard_of(name)
    record = json.loads((folder / "guard.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        record = damaged(of_version_2(record) if old and "settings" not in record else record, data)
    text = json.dumps(record).encode("utf-8", "surrogatepass")
    if cut == 0:
        text = text[: data.draw(st.integers(0, len(text)))]
    path = folder / f"damaged {next(numbers)}.json"
    path.write_bytes(text)
    try:
        found = Guard.load(path, net)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) <= 500
        assert guard_files.input_scale_of(path) in (None, *map(str, [record.get("input_scale")]))
    else:
        # What has been read is what was written, or it would have been refused.
        assert found.default == name
        assert all(np.isfinite(level.threshold) for held in found.detectors.values() for level in held.levels)
        assert json.loads(json.dumps(found.record())) and repr(found)
    finally:
        path.unlink()


def test_detectors_that_a_guard_holds_are_loaded_as_they_were(net, tmp_path):
    """Whatever the order and the settings."""
    held = [GoodNet(), Strip(overlays=5, blend="saturating"), Persistence(masks=6, keep=0.5)]
    guard = calibrate(held, net, CLEAN, frr=0.1, repaired=small_net(2))
    guard.save(tmp_path)
    again = Guard.load(tmp_path / "guard.json", net)
    assert [each.detector for each in again.detectors.values()] == held and again.default == "goodnet"
