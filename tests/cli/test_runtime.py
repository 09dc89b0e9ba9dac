"""How a command runs: exit status, the line of an error, streams that are closed or full."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from cli.helpers_programs import BEGIN, ENVIRONMENT, PRINTS, program

from jaxdefend import InputError, Interrupted, Note, ProcessEnded, TrainingDiverged
from jaxdefend.cli import runtime


def raising(error):
    def command(arguments, report):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.h5: no such file"), "a.h5: no such file"),
        (TrainingDiverged("--learning-rate 2: diverged"), "--learning-rate 2: diverged"),
        (ProcessEnded("another process has ended"), "another process has ended"),
        (Interrupted("interrupted in epoch 3"), "interrupted in epoch 3"),
        (KeyboardInterrupt(), "interrupted; nothing was written"),
        (MemoryError(), "not enough memory; use fewer images or a machine with more"),
        (OSError(36, "File name too long", "x" * 9), "xxxxxxxxx: File name too long"),
    ],
)
def test_errors_are_one_line_and_status_2(capsys, error, line):
    assert runtime.run(raising(error), []) == 2
    assert capsys.readouterr() == ("", f"jaxdefend: {line}\n")


def test_a_mistake_of_ours_is_no_line():
    with pytest.raises(ZeroDivisionError):
        runtime.run(raising(ZeroDivisionError()), [])


def test_the_manual_ends_nothing(capsys):
    from jaxdefend.cli import arguments

    assert runtime.run(lambda words, report: arguments.parser("x", "", "").parsed(words), ["--help"]) == 0
    assert "usage" in capsys.readouterr().out


def test_arguments_are_those_given_or_the_command_lines(monkeypatch):
    found = []
    monkeypatch.setattr("sys.argv", ["program", "a"])
    for given in (None, [], ["b", Path("c")]):
        assert runtime.run(lambda words, report: found.append(words), given) == 0
    assert found == [["a"], [], ["b", "c"]]


def test_warnings_are_lines(capsys):
    def command(words, report):
        for _ in range(2):
            warnings.warn("a guess\n", Note, stacklevel=1)
        warnings.warn("may be wrong", UserWarning, stacklevel=1)

    before = warnings.showwarning
    assert runtime.run(command, []) == 0
    assert capsys.readouterr().err == "note: a guess\\n\nnote: a guess\\n\nwarning: may be wrong\n"
    assert warnings.showwarning is before


def test_status_and_output_of_a_program():
    done = program("def command(words, report): terminal.show('result'); terminal.note('told')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "note: told\n")
    done = program("from jaxdefend import InputError\ndef command(words, report): raise InputError('wrong')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "jaxdefend: wrong\n")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("exec {python} -c {code} >/dev/full", "standard output: cannot be written (No space left on device)"),
        ("exec {python} -c {code} >&-", "standard output is closed: nothing can be printed"),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_takes_nothing_is_one_line(shell, line):
    done = program(PRINTS, shell)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"jaxdefend: {line}\n")


@pytest.mark.parametrize("shell", ["exec {python} -c {code} <&-", "exec {python} -c {code} 2>&-"])
def test_other_closed_streams_are_no_trouble(shell):
    done = program(PRINTS, shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "")


def test_a_closed_stream_is_no_file_that_is_opened_later(tmp_path):
    body = (
        "def command(words, report):\n"
        f"    file = open({str(tmp_path / 'mine')!r}, 'w')\n"
        "    assert file.fileno() > 2, file.fileno()\n"
    )
    done = program(body, "exec {python} -c {code} <&- >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_stops_early_is_no_error():
    body = "def command(words, report):\n    for _ in range(100_000): terminal.show('line')"
    done = program(body, "{python} -c {code} | head -n 1")
    assert (done.stdout, done.stderr) == ("line\n", "")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1", "gbk"])
def test_results_in_any_code_page(encoding):
    environment = ENVIRONMENT | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = [sys.executable, "-c", f"{BEGIN}def command(w, r): terminal.show('− é 名')\nruntime.program(main)"]
    done = subprocess.run(words, capture_output=True, check=False, env=environment)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode(encoding).startswith("-" if encoding != "gbk" else ("−", "-"))
