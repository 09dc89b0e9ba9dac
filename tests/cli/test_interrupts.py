"""Ctrl-C: one line, and work that is saved stops at its next step."""

import signal
import threading

from cli.helpers_programs import pressed, program

from jaxdefend.cli import interrupts, runtime
from jaxdefend.results.progress import Progress


def test_outside_of_the_main_thread():
    """Neither signals nor the end of the process are touched there."""
    before, status = signal.getsignal(signal.SIGINT), []

    def command(words, report):
        with interrupts.stopping(report) as stoppable:
            stoppable(Progress("work", 1, 1))

    thread = threading.Thread(target=lambda: status.append(runtime.run(command, [])))
    thread.start()
    thread.join()
    assert status == [0] and runtime.run(command, []) == 0
    assert signal.getsignal(signal.SIGINT) is before


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
    with interrupts.stopping(report) as stoppable:
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
    with interrupts.stopping(report):
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
