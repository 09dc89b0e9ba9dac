"""A run over several processes: options that do not fit together."""

from argparse import Namespace

import pytest

from jaxdefend import InputError
from jaxdefend.cli import processes


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
        processes.join(Namespace(**dict(zip(("coordinator", "processes", "process"), given, strict=True))))
