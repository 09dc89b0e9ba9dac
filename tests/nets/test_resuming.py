"""What an interrupted run leaves behind, and how it goes on."""

import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels

from jaxdefend import InputError
from jaxdefend.nets import resuming
from jaxdefend.nets.training import Schedule, fit, started

KEY = jax.random.key(0)
SCHEDULE = Schedule(steps=12, batch=16, peak=1e-3)
PIXELS, LABELS = random_pixels(48), (np.arange(48) % 11).astype(np.int32)


def trained(state):
    *_, (last, _) = fit(state, PIXELS, LABELS, SCHEDULE, KEY)
    return last


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_saved_state_goes_on_to_the_same_net(tmp_path):
    whole = trained(started(random_net(), SCHEDULE))
    for done, (state, _) in enumerate(fit(started(random_net(), SCHEDULE), PIXELS, LABELS, SCHEDULE, KEY), 1):
        if done in (3, 7):
            resuming.save(tmp_path / "run", state)
        if done == 7:
            break
    restored = resuming.latest(tmp_path / "run", started(random_net(5), SCHEDULE))
    assert int(restored.step) == 7
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["7"]
    assert_same(whole, trained(restored))


def test_a_saved_state_of_another_net_is_refused(tmp_path):
    resuming.save(tmp_path / "run", started(random_net(classes=7), SCHEDULE))
    with pytest.raises(InputError, match="another net"):
        resuming.latest(tmp_path / "run", started(random_net(), SCHEDULE))
    (tmp_path / "torn" / "5").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        resuming.latest(tmp_path / "torn", started(random_net(), SCHEDULE))


def test_without_a_folder_nothing_is_saved():
    start = started(random_net(), SCHEDULE)
    resuming.save(None, start)
    resuming.same_run(None, {"seed": 1})
    assert resuming.latest(None, start) is start


def test_the_folder_goes_when_the_run_is_over_and_stays_when_it_is_not(tmp_path):
    folder = tmp_path / "new" / "run.checkpoint"
    with resuming.saved_run(folder, resume=False) as saved:
        resuming.same_run(saved, {"seed": 1})
        resuming.save(saved, started(random_net(), SCHEDULE))
        assert resuming.is_saved(folder)
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), resuming.saved_run(folder, resume=False):
        raise KeyboardInterrupt
    assert not (tmp_path / "new" / "run.checkpoint").exists()
    with pytest.raises(KeyboardInterrupt), resuming.saved_run(folder, resume=False) as saved:
        resuming.same_run(saved, {"seed": 1})
        resuming.save(saved, started(random_net(), SCHEDULE))
        raise KeyboardInterrupt
    assert resuming.is_saved(folder)
    with pytest.raises(InputError, match="an interrupted run is saved there"), resuming.saved_run(folder, resume=False):
        pass
    with resuming.saved_run(folder, resume=True) as saved:
        resuming.same_run(saved, {"seed": 1})
        with pytest.raises(InputError, match="saved by a run with another seed, expected 2"):
            resuming.same_run(saved, {"seed": 2})


def test_nothing_to_go_on_from(tmp_path):
    with pytest.raises(InputError, match="nothing saved there"), resuming.saved_run(tmp_path / "run", resume=True):
        pass
    assert not resuming.is_saved(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written"),
        resuming.saved_run(tmp_path / "file" / "x", resume=False),
    ):
        pass
