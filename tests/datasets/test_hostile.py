"""Files that mean to fill the memory or never end: one line, under 2 GB and 20 seconds.

One child process reads them all, each in a child of its own with these limits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import helpers_data
import pytest

import jaxdefend

CHILD = """
import json, os, resource, sys, time
from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

def read(path):
    resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    try:
        images = open_images(path, shape=(55, 47, 3), target=None if "label" in path or "table" in path else 0)
        for pixels, labels in images.chunks(256):
            pass
        return "read"
    except InputError as error:
        return str(error)
    except BaseException as error:
        return f"{type(error).__name__} {error}"

said = {}
for path in sys.argv[1:]:
    begin, end = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if not child:
        with open(end, "w") as file:
            file.write(read(path))
        os._exit(0)
    os.close(end)
    with open(begin) as file:
        line = file.read()
    said[path] = [line, os.waitpid(child, 0)[1], time.monotonic() - start]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each hostile file gives: the line, the status of the process, seconds."""
    if not hasattr(os, "fork") or sys.platform == "darwin":
        pytest.skip("limits need a Unix that keeps them")
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in helpers_data.HOSTILE.items():
        make(folder / name)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *helpers_data.HOSTILE],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(jaxdefend.__file__).parents[1])},
    )
    yield json.loads(done.stdout)
    helpers_data.remove_deep(folder / "deep")


@pytest.mark.parametrize("name", helpers_data.HOSTILE)
def test_hostile_files_are_one_line_in_time(said, name):
    line, status, seconds = said[name]
    assert status == 0 and seconds < 20
    assert name[:100] in line and helpers_data.HOSTILE[name][1] in line
    assert len(line) <= 500 and line.isprintable()
