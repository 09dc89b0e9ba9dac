"""How a command runs: exit status, Ctrl-C, streams that are closed or full, caches."""

import os
import signal
import stat
import subprocess
import sys
import threading
import warnings
from argparse import Namespace
from pathlib import Path
from time import sleep

import pytest

import jaxdefend
from jaxdefend import InputError, Interrupted, Note, ProcessEnded, TrainingDiverged
from jaxdefend.cli import runtime, terminal
from jaxdefend.results.progress import Progress

ROOT = Path(jaxdefend.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def raising(error):
    def command(arguments, report):
        raise error

    return command


# Without jax: what is tested here is the frame around a command.
BEGIN = """
import gc, os, signal, sys, time
from jaxdefend.cli import runtime, terminal

def main():
    return runtime.run(command, [])

"""


def program(body: str, shell: str = "exec {python} -c {code}", **more):
    code = f"{BEGIN}{body}\nruntime.program(main)\n"
    words = ["sh", "-c", shell.format(python='"$0"', code='"$1"'), sys.executable, code]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60, **({"env": ENVIRONMENT} | more)
    )


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


def test_outside_of_the_main_thread():
    """Neither signals nor the end of the process are touched there."""
    before, status = signal.getsignal(signal.SIGINT), []

    def command(words, report):
        with runtime.stopping(report) as stoppable:
            stoppable(Progress("work", 1, 1))

    thread = threading.Thread(target=lambda: status.append(runtime.run(command, [])))
    thread.start()
    thread.join()
    assert status == [0] and runtime.run(command, []) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_status_and_output_of_a_program():
    done = program("def command(words, report): terminal.show('result'); terminal.note('told')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "note: told\n")
    done = program("from jaxdefend import InputError\ndef command(words, report): raise InputError('wrong')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "jaxdefend: wrong\n")


PRINTS = "def command(words, report): terminal.show('result')"


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


# Ctrl-C


def pressed(body: str, *, times: int = 1) -> subprocess.CompletedProcess:
    """Ctrl-C once the program says that it is ready."""
    words = [sys.executable, "-u", "-c", f"{BEGIN}{body}\nruntime.program(main)\n"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert running.stdout.readline() == "ready\n"
    for _ in range(times):
        sleep(0.05)
        running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    return subprocess.CompletedProcess(words, running.returncode, out, err)


def test_ctrl_c_is_one_line():
    done = pressed("def command(words, report):\n    terminal.show('ready')\n    time.sleep(20)", times=3)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "jaxdefend: interrupted; nothing was written\n")


def test_after_the_results_it_says_where_they_are():
    body = """
from argparse import Namespace
from pathlib import Path
def command(words, report):
    runtime.written.set(Path("there"))
    terminal.show("ready")
    time.sleep(20)
"""
    assert pressed(body).stderr == "jaxdefend: interrupted; the results are in there\n"


def test_ctrl_c_at_the_end_does_not_change_the_status():
    body = """
import atexit
atexit.register(time.sleep, 1)
def command(words, report):
    atexit.register(lambda: print("ready", flush=True))
"""
    done = pressed(body, times=2)
    assert (done.returncode, done.stderr) == (0, "")


def test_work_that_is_saved_stops_at_the_next_step():
    body = """
from jaxdefend.results.progress import Progress
def command(words, report):
    with runtime.stopping(report) as stoppable:
        terminal.show("ready")
        for step in range(200):
            time.sleep(0.05)
            stoppable(Progress("noise", step, 200, "steps"))
"""
    done = pressed(body)
    assert done.returncode == 2
    assert done.stderr.startswith("jaxdefend: interrupted (noise, ") and done.stderr.endswith(" of 200 steps)\n")


def test_a_second_ctrl_c_does_not_wait_for_the_step():
    body = """
def command(words, report):
    with runtime.stopping(report):
        terminal.show("ready")
        time.sleep(20)
"""
    done = pressed(body, times=2)
    assert (done.returncode, done.stderr) == (2, "jaxdefend: interrupted; nothing was written\n")


def test_an_interrupt_that_python_swallows_comes_again():
    body = """
def interrupted_in_a_callback(*_):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

def command(words, report):
    gc.callbacks.append(interrupted_in_a_callback)
    gc.collect()
    time.sleep(30)
"""
    done = program(body)
    assert (done.returncode, done.stderr) == (2, "jaxdefend: interrupted; nothing was written\n")


# jax


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "jaxdefend"
    monkeypatch.setattr("jaxdefend.results.cache.cache_folder", lambda: folder)
    return folder


def test_compilations_are_kept_in_a_folder_of_ones_own(cache, capsys):
    assert runtime.compilations() == cache / "xla"
    assert stat.S_IMODE((cache / "xla").stat().st_mode) == 0o700
    assert runtime.compilations() == cache / "xla"
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users")
def test_a_folder_that_others_can_write_is_not_used(cache, capsys, monkeypatch):
    runtime.compilations()
    (cache / "xla").chmod(0o777)
    assert runtime.compilations() is None
    assert "can be written by other users" in capsys.readouterr().err
    (cache / "xla").chmod(0o700)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert runtime.compilations() is None
    assert "belongs to another user" in capsys.readouterr().err


def test_no_cache_is_no_trouble(cache, monkeypatch):
    cache.write_text("a file")
    assert runtime.compilations() is None
    monkeypatch.setattr("jaxdefend.results.cache.cache_folder", lambda: None)
    assert runtime.compilations() is None


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    from jaxdefend.results.cache import cache_folder

    assert cache_folder().name == "jaxdefend"
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert cache_folder() is None


def test_cores_are_those_of_the_container(tmp_path):
    bound = runtime.cores(tmp_path / "none")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert runtime.cores(tmp_path / "cpu.max") == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert runtime.cores(tmp_path / "cpu.max") == bound


def test_a_users_own_flags_count(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f\n")
    for before, after in (
        ("", "--xla_cpu_prefer_vector_width=512"),
        ("--a=1", "--a=1 --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
        ("flags.txt", "flags.txt"),
    ):
        monkeypatch.setenv("XLA_FLAGS", before)
        runtime.use_wide_vectors(tmp_path / "cpuinfo")
        assert os.environ["XLA_FLAGS"] == after


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_a_shell_with_too_little_memory():
    done = program(PRINTS, "ulimit -v 600000; exec {python} -c {code}")
    assert done.returncode == 2
    assert done.stderr.startswith("jaxdefend: this shell allows a process 614 MB") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, 2, 0), "--processes and --process go with --coordinator"),
        (("host:1", 2, None), "expected --processes N and --process I"),
        (("host:1", 2, 2), "I in 0…N − 1"),
        (("host", 2, 1), "expected HOST:PORT"),
        (("auto", 2, 1), "go with --coordinator HOST:PORT"),
    ],
)
def test_processes_that_do_not_fit_together(given, said):
    with pytest.raises(InputError, match=said):
        runtime.join_processes(Namespace(**dict(zip(("coordinator", "processes", "process"), given, strict=True))))


def test_a_silent_process_still_says_why_it_ends(capsys, monkeypatch):
    monkeypatch.setattr(terminal._Errors, "kept", None)
    with open(os.devnull, "w") as nowhere, monkeypatch.context() as streams:
        streams.setattr("sys.stdout", sys.stdout)
        streams.setattr("sys.stderr", sys.stderr)
        terminal.silence(nowhere)
        terminal.note("unheard")
        terminal.show("unseen")
        terminal.fail("heard")
    assert capsys.readouterr() == ("", "jaxdefend: heard\n")
