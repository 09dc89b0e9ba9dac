"""Commands in several processes over loopback, as on several hosts."""

import socket
import subprocess
import sys

from helpers import ENVIRONMENT


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def started(processes, name, *arguments, cwd):
    """The processes of a command, each in its folder; those after the first have more devices, as hosts may."""
    folders = cwd if isinstance(cwd, list) else [cwd] * processes
    address = f"127.0.0.1:{free_port()}"
    joined = ["--coordinator", address, "--processes", str(processes), "--process"]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", f"jaxdefend.{name}", *map(str, arguments)),
                *([] if processes == 1 else [*joined, str(number)]),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folders[number],
            env=ENVIRONMENT | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(1 + number)},
        )
        for number in range(processes)
    ]


def ended(running, timeout=300):
    """Exit status, output and errors of each."""
    said = [process.communicate(timeout=timeout) for process in running]
    return [(process.returncode, *each) for process, each in zip(running, said, strict=True)]


def together(processes, name, *arguments, cwd, status=0):
    """What process 0 prints and says; all end with this status, the others silent."""
    first, *others = ended(started(processes, name, *arguments, cwd=cwd))
    assert [first[0], *(each[0] for each in others)] == [status] * processes, (first, others)
    assert [each[1:] for each in others] == [("", "")] * (processes - 1)
    return first[1:]
