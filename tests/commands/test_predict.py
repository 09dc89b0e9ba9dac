"""Single images and lists of them, as a user types it."""

import codecs
import io
import json
import sys

import h5py
import pytest
from helpers import process, random_net, refused, succeeds

from jaxdefend.nets.keras_files import write_model

CLASSES = 11


def test_predict(small):
    pair = ("--model", small / "net.h5", "--repaired", small / "repaired.h5")
    done = succeeds("predict", small / "faces", small / "test.h5", *pair, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 34
    for row in rows:
        assert set(row) == {"image", "badnet", "repaired", "goodnet", "backdoored", "confidence"}
        assert row["goodnet"] == (row["badnet"] if row["badnet"] == row["repaired"] else CLASSES)
        assert row["backdoored"] == (row["goodnet"] == CLASSES)
        assert 0 < row["confidence"] <= 1
    with h5py.File(small / "test.h5") as file:
        assert [row["badnet"] for row in rows[4:]] == file["label"][:].tolist()
    table = succeeds("predict", small / "faces" / "test_0_7.png", *pair).stdout
    assert str(rows[0]["badnet"]) in table


def test_it_says_what_it_assumes(small, tmp_path):
    write_model(random_net(classes=CLASSES, input_scale=None), tmp_path / "net.h5")
    done = succeeds("predict", small / "faces", "--model", tmp_path / "net.h5")
    assert "assuming" in done.stderr and "--input-scale" in done.stderr
    quiet = succeeds("predict", small / "faces", "--model", tmp_path / "net.h5", "--input-scale", "raw")
    assert "assuming" not in quiet.stderr


def test_several_repaired_nets_decide_together(small):
    pair = ("--repaired", small / "repaired.h5", small / "net.h5")
    for rule in ("goodnet", "anti"):
        done = succeeds("predict", small / "test.h5", "--model", small / "net.h5", *pair, "--rule", rule, "--json")
        for row in map(json.loads, done.stdout.splitlines()):
            assert row["repaired_2"] == row["badnet"]
            both = row["repaired"] == row["badnet"]
            assert row["goodnet"] == (row["badnet"] if both and rule == "goodnet" else CLASSES)


class Standard:
    """Standard input with these bytes."""

    def __init__(self, read: bytes):
        self.buffer = io.BufferedReader(io.BytesIO(read))


FACES = ("faces/test_0_7.png", "faces/test_1_8.png", "faces/test_3_10.png")


@pytest.mark.parametrize(
    ("read", "options"),
    [
        ("\n".join(FACES).encode(), ()),
        ("".join(f"{face}\n" for face in FACES).encode(), ()),
        ("".join(f"{face}\r\n\r\n" for face in FACES).encode(), ()),
        (codecs.BOM_UTF8 + "\r\n".join(FACES).encode(), ()),
        ("\r\n".join(FACES).encode("utf-16"), ()),
        ("\0".join(FACES).encode(), ("-0",)),
        ("".join(f"{face}\0" for face in FACES).encode(), ("--null",)),
    ],
)
def test_lists_on_standard_input(small, monkeypatch, read, options):
    monkeypatch.setattr("sys.stdin", Standard(read))
    done = succeeds("predict", "-", *options, "--model", "net.h5", "--json", cwd=small)
    assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == list(FACES)


def test_one_table_for_a_list_of_any_length(small, monkeypatch):
    monkeypatch.setattr("jaxdefend.predict._LISTED", 2)
    monkeypatch.setattr("sys.stdin", Standard("\n".join(FACES).encode()))
    lines = succeeds("predict", "-", "--model", "net.h5", cwd=small).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["image", *FACES]


def test_a_list_that_is_not_there(small, monkeypatch):
    for read, said in (
        (Standard(b""), "no paths"),
        (Standard(b"\n\n"), "no paths"),
        (None, "standard input is closed"),
    ):
        monkeypatch.setattr("sys.stdin", read)
        assert said in refused("predict", "-", "--model", "net.h5", cwd=small)
    assert "goes alone" in refused("predict", "-", "test.h5", "--model", "net.h5", cwd=small)
    assert "--null" in refused("predict", "test.h5", "-0", "--model", "net.h5", cwd=small)


def test_nets_among_the_images(small):
    line = refused("predict", "faces/test_0_7.png", "net.h5", "repaired.h5", cwd=small)
    assert "net.h5, repaired.h5 are nets, not images" in line
    assert "python -m jaxdefend.predict faces/test_0_7.png --model net.h5 --repaired repaired.h5" in line


def test_the_shipped_net_and_its_guard(small, tmp_path):
    (tmp_path / "bd_net").mkdir()
    done = succeeds("predict", small / "faces" / "test_0_7.png", cwd=tmp_path)
    assert done.stdout.splitlines()[0].split()[-2:] == ["score", "label"]
    assert "an image is rejected if" in done.stderr
    assert "bd_net is the shipped net; the one in the current folder is ./bd_net" in done.stderr


def test_a_reader_that_stops_early_is_no_error(small):
    import subprocess

    from helpers import ENVIRONMENT

    line = f"{sys.executable} -m jaxdefend.predict {small / 'faces'} --model {small / 'net.h5'} --json | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_names_in_other_scripts_on_an_old_terminal(small, tmp_path):
    import os

    from helpers import ENVIRONMENT

    name = tmp_path / "Grüße_名.png"
    name.write_bytes((small / "faces" / "test_0_7.png").read_bytes())
    for encoding in ("ascii", "cp437", "gbk"):
        environment = ENVIRONMENT | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
        done = process("predict", name, "--model", small / "net.h5", env=environment, encoding=encoding)
        assert done.returncode == 0, done.stderr
        assert "Gr" in done.stdout and os.linesep in done.stdout
