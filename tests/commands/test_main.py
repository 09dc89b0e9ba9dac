"""The console script, the manuals, and a notebook that calls the commands."""

import subprocess
import sys
import threading

import pytest
from helpers import ENVIRONMENT, command, process, succeeds

from jaxdefend import __version__
from jaxdefend.__main__ import COMMANDS


def test_the_console_script_has_the_same_commands(small, tmp_path):
    assert "sweep" in command("__main__", "--help").stdout
    assert command("__main__").stdout == command("__main__", "--help").stdout
    assert command("__main__", "--version").stdout == f"jaxdefend {__version__}\n"
    assert command("__main__", "nothing").returncode == 2
    data = (small / "net.h5", "--clean", small / "test.h5", "--out", tmp_path)
    assert command("__main__", "evaluate", *data).returncode == 0
    words = [sys.executable, "-m", "jaxdefend", "evaluate", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"jaxdefend {__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_manual(name):
    done = succeeds(name, "--help")
    assert f"python -m jaxdefend.{name} " in done.stdout and "examples:" in done.stdout
    assert succeeds(name, "--version").stdout == f"jaxdefend {__version__}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1", "gbk"])
@pytest.mark.parametrize("name", ["repair", "detect"])
def test_help_on_any_code_page(name, encoding):
    done = process(
        name, "--help", env=ENVIRONMENT | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}, encoding=encoding
    )
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("action", ["calibrate", "score", "evaluate"])
def test_every_action_of_detect_explains_itself(action):
    assert f"jaxdefend.detect {action}" in succeeds("detect", action, "--help").stdout


def test_commands_in_a_thread_with_nothing_to_show(small, tmp_path):
    """As a notebook's kernel or a server runs them."""
    from jaxdefend import evaluate

    status = []
    arguments = [str(small / "net.h5"), "--clean", str(small / "test.h5"), "--out", str(tmp_path / "out")]
    thread = threading.Thread(target=lambda: status.append(evaluate.main(arguments)))
    thread.start()
    thread.join()
    assert status == [0] and (tmp_path / "out" / "evaluate.json").exists()


@pytest.mark.parametrize(
    "words",
    [("sweep",), ("repair",), ("predict", "x.png"), ("detect", "evaluate"), ("train",)],
)
def test_a_current_folder_that_was_deleted(words):
    code = (
        "import os, subprocess, sys, tempfile; folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder);"
        "sys.exit(subprocess.run([sys.executable, '-m', *sys.argv[1:]]).returncode)"
    )
    module = [f"jaxdefend.{words[0]}", *words[1:]]
    done = subprocess.run(
        [sys.executable, "-c", code, *module],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "jaxdefend: the current folder does not exist any more; change to another one\n"
