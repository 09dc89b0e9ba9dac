"""What people see, on every terminal."""

import io
import os
import sys

import pytest

from jaxdefend import InputError
from jaxdefend.cli import terminal
from jaxdefend.results.progress import Progress


class Terminal(io.TextIOWrapper):
    """A terminal with this encoding, as strict as Python's."""

    def __init__(self, encoding: str = "utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [
        ("utf-8", "0–1 × 2 … ≥ 名"),
        ("ascii", "0-1 x 2 ... >= \\u540d"),
        ("cp1252", "0–1 × 2 … >= \\u540d"),
        ("cp437", "0-1 x 2 ... ≥ \\u540d"),
        ("latin-1", "0-1 × 2 ... >= \\u540d"),
        ("gbk", "0–1 × 2 … ≥ 名"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(monkeypatch, encoding, seen):
    monkeypatch.setattr("sys.stdout", Terminal(encoding))
    monkeypatch.setattr("sys.stderr", Terminal(encoding))
    terminal.show("0–1 × 2 … ≥ 名")
    terminal.note("0–1 × 2 … ≥ 名")
    import sys

    assert sys.stdout.text() == f"{seen}\n"
    assert sys.stderr.text() == f"note: {seen}\n"


def test_control_characters_are_escaped(capsys):
    terminal.show("a\x1b[31mb\nc\x07")
    terminal.warn("one\nline\r")
    terminal.fail("\x1b]0;title\x07")
    out, err = capsys.readouterr()
    assert out == "a\\x1b[31mb\nc\\x07\n"
    assert err == "warning: one\\nline\\r\njaxdefend: \\x1b]0;title\\x07\n"


def test_a_long_line_is_cut(capsys):
    terminal.fail("x" * 100_000)
    assert len(capsys.readouterr().err) <= terminal.LIMIT + 1


def test_a_closed_or_full_output_is_an_input_error(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(InputError, match="standard output is closed"):
        terminal.show("x")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(InputError, match="standard output: cannot be written"):
            terminal.show("x")
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.close()


def test_closed_or_full_errors_are_no_trouble(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    terminal.note("x")
    with terminal.Bars() as bars:
        bars(Progress("work", 1, 2))
    monkeypatch.setattr("sys.stderr", open("/dev/full", "w"))  # noqa: SIM115
    terminal.note("x")


def test_bars_are_drawn_on_a_terminal_only(monkeypatch, capsys):
    def work(bars):
        for done in range(5):
            bars(Progress("clean", done, 4))
        bars(Progress("noise", 1, 2, "steps", "epoch 1 of 2: loss 0.1"))
        bars(Progress("noise", 2, 2, "steps", "epoch 2 of 2: loss 0.05"))

    with terminal.Bars() as bars:
        work(bars)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "epoch 1 of 2: loss 0.1\nepoch 2 of 2: loss 0.05\n")

    for encoding in ("utf-8", "ascii", "cp1252"):
        monkeypatch.setattr("sys.stderr", Terminal(encoding))
        monkeypatch.setenv("TERM", "xterm")
        with terminal.Bars() as bars:
            work(bars)
        import sys

        assert "clean" in sys.stderr.text() and "epoch 1 of 2: loss 0.1\n" in sys.stderr.text()
        assert sys.stderr.text().endswith("\x1b[?25h\r\x1b[1A\x1b[2K") or "\x1b[?25h" in sys.stderr.text()


def test_an_error_gives_the_cursor_back(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyError), terminal.Bars() as bars:
        bars(Progress("a [bold]name[/bold]", 1, 4))
        raise KeyError
    import sys

    text = sys.stderr.text()
    assert "a [bold]name[/bold]" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_the_time_left_stands_behind_a_line(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(terminal, "perf_counter", lambda: next(clock))
    with terminal.Bars() as bars:
        bars(Progress("noise", 10, 40, "steps"))
        bars(Progress("noise", 20, 40, "steps", "epoch 2 of 4"))
        bars(Progress("noise", 21, 40, "steps", "epoch 2 of 4"))
    assert capsys.readouterr().err == "epoch 2 of 4, 20 s left\nepoch 2 of 4, 35 s left\n"


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
