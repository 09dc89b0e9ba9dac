"""Result files: written whole or not at all."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import ENVIRONMENT

from jaxdefend import InputError
from jaxdefend.results import records
from jaxdefend.results.records import output_folder, write_json


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), records.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_holds_arrays_as_lists(tmp_path):
    records.write_json(tmp_path / "a.json", {"counts": np.arange(3), "share": np.float32(0.5), "pruned": range(2)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"counts": [0, 1, 2], "share": 0.5, "pruned": [0, 1]}


def test_csv_columns(tmp_path):
    records.write_csv(tmp_path / "a.csv", {"pruned": range(2), "channel": [None, 7], "share": np.array([1, 0.25])})
    assert (tmp_path / "a.csv").read_text() == "pruned,channel,share\n0,,1.0\n1,7,0.25\n"


def test_an_output_folder_appears_when_all_is_there(tmp_path):
    folder = tmp_path / "runs" / "first"
    with records.output_folder(folder) as staging:
        (staging / "repaired").mkdir()
        (staging / "repaired" / "net.h5").write_text("net")
        assert not folder.exists()
    assert (folder / "repaired" / "net.h5").read_text() == "net"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failed_run_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), records.output_folder(tmp_path / "runs" / "first") as staging:
        (staging / "sweep.json").write_text("{}")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_keeps_what_it_had(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "sweep.json").write_text("old")
    with records.output_folder(tmp_path) as staging:
        (staging / "sweep.json").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"notes.txt": "mine", "sweep.json": "new"}


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: is a file"), records.output_folder(tmp_path / "out"):
        pass


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), records.output_folder(tmp_path / "file" / "out"):
        pass


def test_json_holds_dataclasses_and_any_language_in_utf_8(tmp_path):
    @dataclass(frozen=True)
    class Result:
        name: str

    records.write_json(tmp_path / "a.json", {"result": Result("Jörg 顔")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"result": {"name": "Jörg 顔"}}
    records.write_csv(tmp_path / "a.csv", {"image": ["Jörg 顔.png"]})
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "image\nJörg 顔.png\n"
    with pytest.raises(TypeError, match="set has no JSON form"):
        records.write_json(tmp_path / "b.json", {"x": {1}})
    assert not (tmp_path / "b.json").exists()


def test_columns_of_unequal_length_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        records.write_csv(tmp_path / "a.csv", {"a": [1, 2], "b": [1]})
    assert not list(tmp_path.iterdir())


def written_by(run, folder, owned):
    """Runs that write `run`: {path: text}."""
    with records.output_folder(folder, owned) as staging:
        for name, text in run.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def texts_in(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


OWNED = ("sweep.json", "repaired/drop_*.h5", "net.orbax")


def test_nothing_of_an_earlier_run_stands_beside_a_new_one(tmp_path):
    first = {"sweep.json": "1", "repaired/drop_2.h5": "2", "repaired/drop_4.h5": "4", "net.orbax/a": "x"}
    written_by(first, tmp_path / "out", OWNED)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "repaired" / "best.h5").write_text("mine too")
    second = {"sweep.json": "new", "repaired/drop_4.h5": "new", "net.orbax/b": "y"}
    assert records.left_over(tmp_path / "out", OWNED) == sorted(
        tmp_path / "out" / name for name in ("sweep.json", "repaired/drop_2.h5", "repaired/drop_4.h5", "net.orbax")
    )
    written_by(second, tmp_path / "out", OWNED)
    assert texts_in(tmp_path / "out") == second | {"notes.txt": "mine", "repaired/best.h5": "mine too"}


def test_a_failed_run_leaves_the_earlier_one_as_it_was(tmp_path):
    first = {"sweep.json": "1", "repaired/drop_2.h5": "2"}
    written_by(first, tmp_path / "out", OWNED)
    with pytest.raises(KeyboardInterrupt), records.output_folder(tmp_path / "out", OWNED) as staging:
        (staging / "sweep.json").write_text("half")
        raise KeyboardInterrupt
    assert texts_in(tmp_path / "out") == first


def test_a_link_that_has_an_owned_name_goes_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "net.orbax").symlink_to(tmp_path / "elsewhere")
    written_by({"sweep.json": "1"}, tmp_path / "out", OWNED)
    assert texts_in(tmp_path / "out") == {"sweep.json": "1"}
    assert (tmp_path / "elsewhere" / "kept").read_text() == "kept"


@pytest.mark.skipif(os.name == "nt", reason="whether a process lives cannot be asked there")
def test_what_a_killed_process_left_goes_and_what_others_write_stays(tmp_path):
    code = (
        "import os, sys, signal; from pathlib import Path; from jaxdefend.results.records import *\n"
        "with replacing(Path('kept [1].json')) as temporary, output_folder(Path('out')) as folder:\n"
        "    temporary.write_text('half'); (folder / 'half.h5').write_text('half')\n"
        "    if sys.argv[1] == 'killed': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    print('writing', flush=True); input()\n"
    )
    command = [sys.executable, "-c", code]
    subprocess.run([*command, "killed"], cwd=tmp_path, env=ENVIRONMENT)
    left = set(tmp_path.iterdir())
    assert len(left) == 2
    with subprocess.Popen(
        [*command, "lives"], cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "writing\n"
        assert not left & set(tmp_path.iterdir())
        write_json(tmp_path / "kept [1].json", {"a": 1})
        with output_folder(tmp_path / "out") as folder:
            (folder / "b").write_text("b")
        assert len(set(tmp_path.iterdir())) == 4
        other.communicate("go on")
    assert {path.name for path in tmp_path.iterdir()} == {"kept [1].json", "out"}
