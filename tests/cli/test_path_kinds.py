"""What the paths of a command line lead to, and words in another order."""

import pytest

from jaxdefend.cli import path_kinds

pytestmark = pytest.mark.usefixtures("here")


def test_patterns_that_no_shell_expanded():
    assert path_kinds.expanded(["valid.h5", "faces/*_[12].png", "none*"]) == [
        "valid.h5",
        "faces/test_1_1.png",
        "faces/test_2_2.png",
        "none*",
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("net.h5", "net"),
        ("bd_net", "net"),
        ("valid.h5", "data"),
        ("faces", "data"),
        ("faces/test_0_0.png", "data"),
        ("neither.h5", None),
        ("missing.h5", None),
        ("x" * 5000, None),
        ("\0", None),
    ],
)
def test_what_a_path_is(path, kind):
    assert path_kinds.kind_of(path) == kind


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["valid.h5", "net.h5"], "evaluate net.h5 --clean valid.h5"),
        (["valid.h5", "test.h5", "net.h5"], "evaluate net.h5 --clean valid.h5 --poisoned test.h5"),
        (["valid.h5", "net.h5", "fixed.h5"], "evaluate net.h5 --clean valid.h5 --repaired fixed.h5"),
        (["valid.h5", "neither.h5"], None),
        (["net.h5", "fixed.h5"], None),
    ],
)
def test_words_in_the_order_of_other_scripts(words, line):
    told = path_kinds.out_of_order("evaluate", words, "--clean")
    assert told is None if line is None else told.endswith(f"python -m jaxdefend.{line}")
