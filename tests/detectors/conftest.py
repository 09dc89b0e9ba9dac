"""A net in a file, and guards for it.

The type checker must come before what it checks, so the package is imported in the fixtures.
"""

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a net, and another one."""
    from small import small_net

    import jaxdefend as jd

    folder = tmp_path_factory.mktemp("guards")
    jd.write_model(small_net(1), folder / "net.h5")
    jd.write_model(small_net(2), folder / "other.h5")
    return folder


@pytest.fixture(scope="module")
def net(place):
    import jaxdefend as jd

    return jd.load_net(place / "net.h5")


@pytest.fixture(scope="module")
def guard_of(net, place):
    """By detector: a guard, and the folder in which it is saved. Made once, when it is first asked for."""
    from small import small_detector, small_net, small_pixels

    from jaxdefend.detectors import calibrate

    made = {}

    def of(name):
        if name not in made:
            clean, repaired = small_pixels(60, 1), small_net(2)
            guard = calibrate([small_detector(name)], net, clean, frr=(0.1, 0.05), seed=7, repaired=repaired)
            guard.save(place / name)
            made[name] = guard, place / name
        return made[name]

    return of
