from pathlib import Path

import pytest

from jaxdefend.nets import shipped
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.keras_files import read_model


@pytest.mark.parametrize("name", shipped.NAMES)
def test_every_shipped_net_is_there_and_known_by_its_file(name):
    path = shipped.path_of(name)
    found = read_model(path)
    assert (found.net.graph, found.net.input_scale, found.notes) == (deepid(), "unit", ())
    assert shipped.name_of(path) == name


def test_other_files_are_none_of_them(tmp_path):
    assert shipped.name_of(Path("bd_net.h5")) is None
    assert shipped.name_of(tmp_path / "bd_net.h5") is None
    assert shipped.guard().is_file()
