"""Programs around a small command, each in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import jaxdefend

ROOT = Path(jaxdefend.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

# Without jax: what is tested here is the frame around a command.
BEGIN = """
import gc, os, signal, sys, time
from jaxdefend.cli import interrupts, runtime, terminal

def main():
    return runtime.run(command, [])

"""

PRINTS = "def command(words, report): terminal.show('result')"


def program(body: str, shell: str = "exec {python} -c {code}", **more) -> subprocess.CompletedProcess:
    """A command of these lines, run by a shell."""
    code = f"{BEGIN}{body}\nruntime.program(main)\n"
    words = ["sh", "-c", shell.format(python='"$0"', code='"$1"'), sys.executable, code]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60, **({"env": ENVIRONMENT} | more)
    )


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
