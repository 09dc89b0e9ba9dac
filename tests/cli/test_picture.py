"""The curve in letters."""

import sys

import numpy as np

from jaxdefend.cli.picture import drawn, show_curve

SWEEP = {"test_accuracy": np.linspace(1, 0, 61), "attack_success": {"glasses\x1b": np.ones(61)}}


def test_a_column_for_every_point():
    lines = drawn([SWEEP["test_accuracy"], np.ones(61)], 80)
    assert len(lines) == 13
    assert lines[0].startswith("100 |oo") and lines[0].endswith("x")
    assert lines[10] == f"  0 |{' ' * 57}oooo"
    assert lines[12].split() == ["0", "channels", "pruned", "60"]


def test_many_channels_in_a_narrow_terminal():
    lines = drawn([np.ones(513)], 40)
    assert max(map(len, lines[:12])) <= 45 and "512" in lines[12]


class Screen:
    encoding = "ascii"

    def __init__(self, is_terminal):
        self.is_terminal, self.text = is_terminal, ""

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_it_is_drawn_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for is_terminal in (True, False):
        screen = Screen(is_terminal)
        monkeypatch.setattr(sys, "stdout", screen)
        show_curve(SWEEP)
        assert ("channels pruned" in screen.text) == is_terminal
        assert "glasses\\x1b" in screen.text or not is_terminal
