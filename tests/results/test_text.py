"""Text that is safe to print, sorted as people sort it, and set in columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdefend.results.text import listed, natural, printable, shortened, table


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    assert printable(text).isprintable()
    assert len(printable(text, 40)) <= 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("Jörg 顔", "Jörg 顔"),
        # What a file name that is not UTF-8 becomes.
        (b"a\xff".decode(errors="surrogateescape"), "a\\udcff"),
        (None, "None"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


@given(st.text(max_size=60), st.integers(5, 40))
def test_shortened_text_keeps_its_ends(text, limit):
    found = shortened(text, limit)
    assert len(found) <= limit
    if len(text) <= limit:
        assert found == text
    else:
        assert len(found) == limit and found[0] == text[0] and found[-1] == text[-1] and "…" in found


def test_numbers_are_sorted_as_numbers():
    names = ["image_10", "image_2", "image_1b", "image_02a", "2", "10", "", "a"]
    assert sorted(names, key=natural) == ["", "2", "10", "a", "image_1b", "image_2", "image_02a", "image_10"]


@given(st.lists(st.text("a1２b0é", max_size=6), max_size=8))
def test_any_names_can_be_sorted(names):
    assert sorted(sorted(names, key=natural)) == sorted(names)


def test_columns():
    shown = table(["", "images", "rate"], [["clean", "12", "1.5 %"], ["sunglasses", "7", "–"]])
    assert shown.splitlines() == ["            images   rate", "clean           12  1.5 %", "sunglasses       7      –"]


def test_a_table_without_rows_is_its_heading():
    assert table(["a", "b"], []) == "a  b"


def test_a_list_of_names_says_how_many_more():
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
