"""What long work reports."""

import numpy as np
import pytest

from jaxdefend import Interrupted
from jaxdefend.results.progress import Progress, silent, tracked

BATCHES = [(np.zeros(4), np.zeros(4))] * 3


def test_every_batch_is_passed_on_and_reported_when_it_is_done():
    told, seen = [], []
    for pixels, _ in tracked(BATCHES, "curve", 10, told.append):
        seen.append((len(pixels), len(told)))
    assert seen == [(4, 0), (4, 1), (4, 2)]
    # The last batch is filled up: no more are done than there are.
    assert told == [Progress("curve", done, 10) for done in (4, 8, 10)]
    assert told[0].unit == "images" and told[0].message == ""


def test_what_the_callback_raises_comes_through():
    def stop(progress):
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        list(tracked(BATCHES, "curve", 12, stop))


def test_silence():
    assert silent(Progress("curve", 1, 2)) is None
