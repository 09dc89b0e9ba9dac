"""The folder of a run's results, what every result file begins with, and the last line."""

from pathlib import Path

import pytest
from small import small_net

from jaxdefend import InputError, Interrupted
from jaxdefend.cli import output, runtime
from jaxdefend.nets.keras_files import read_model, write_model


def test_without_a_folder_there_is_a_new_one_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = []
    for _ in range(3):
        with output.results_folder(output.chosen_folder(None)) as folder:
            (folder / "a").write_text("b")
        folders.append(runtime.written.get())
    assert len(set(folders)) == 3 and all(folder.parent == Path("runs") for folder in folders)


@pytest.mark.parametrize("asked", ["file", "x" * 5000])
def test_a_folder_that_cannot_be(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"^--out "):
        output.chosen_folder(Path(asked))


@pytest.mark.parametrize(
    ("folder", "name"), [("out", "out.checkpoint"), ("a/b", "b.checkpoint"), (".", "here.checkpoint")]
)
def test_beside_a_folder(tmp_path, monkeypatch, folder, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert output.beside(Path(folder), ".checkpoint").name == name


def test_nothing_is_beside_the_root():
    with pytest.raises(InputError, match="--out /"):
        output.beside(Path("/"), ".checkpoint")


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match="nothing was written"), output.resumable(out, False):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    how = f"saved: the same command with --out {out} and --resume goes on"
    with pytest.raises(Interrupted, match=how), output.resumable(out, False) as saved:
        (saved / "1").mkdir()
        (saved / "configuration.json").write_text("{}")
        raise Interrupted("interrupted (noise, 3 of 5 steps)")
    with pytest.raises(InputError, match="--resume"), output.resumable(out, False):
        pass
    with output.resumable(out, True):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="leave out --resume"), output.resumable(out, True):
        pass


def test_the_head_of_a_record(tmp_path):
    write_model(small_net(), tmp_path / "net.h5")
    net = read_model(tmp_path / "net.h5").net
    head = output.head("sweep", ["net.h5", "--valid", "my faces.h5"], net, 3)
    assert list(head) == ["schema", "command", "model", "input_scale", "device", "versions", "seed"]
    assert head["command"] == "python -m jaxdefend.sweep net.h5 --valid 'my faces.h5'"
    assert head["model"] == output.file_record(tmp_path / "net.h5")
    assert output.head("sweep", [], net.pruned("last", [0]), None)["model"] is None


def test_the_last_line_names_the_file_to_open(capsys):
    output.say_written(Path("runs/a"), ["sweep.json", "sweep.png"], "sweep.png")
    output.say_written(Path("runs/a"), ["evaluate.json"])
    assert capsys.readouterr().err.splitlines() == [
        "note: written to runs/a/: sweep.json, sweep.png; open runs/a/sweep.png",
        "note: written to runs/a/evaluate.json",
    ]
