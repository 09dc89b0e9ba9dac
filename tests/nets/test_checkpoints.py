import numpy as np
import pytest
from helpers import random_net, random_weights

from jaxdefend import InputError
from jaxdefend.nets import deepid
from jaxdefend.nets.checkpoints import read_checkpoint, write_checkpoint


@pytest.mark.parametrize(("classes", "scale"), [(3, "raw"), (11, None), (1283, "unit")])
def test_round_trip_is_exact_and_quiet(tmp_path, capfd, classes, scale):
    weights = random_weights(1, classes)
    weights["conv_1"]["bias"][:3] = [-0.0, 1e-42, 3e38]
    write_checkpoint(deepid.from_weights(weights, scale), tmp_path / "new" / "net")
    found = read_checkpoint(tmp_path / "new" / "net")
    for layer, arrays in deepid.to_weights(found).items():
        for kind, array in arrays.items():
            assert array.tobytes() == weights[layer][kind].tobytes(), f"{layer}/{kind}"
    assert (found.classes, found.input_scale) == (classes, scale)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "net").mkdir()
    with pytest.raises(InputError, match="is there already"):
        write_checkpoint(random_net(), tmp_path / "net")
    assert not list((tmp_path / "net").iterdir())
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="cannot be written"):
        write_checkpoint(random_net(), tmp_path / "file" / "net")


def test_folders_that_hold_no_net(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    write_checkpoint(random_net(), tmp_path / "damaged")
    (tmp_path / "damaged" / "_METADATA").write_text("{")
    for name in ("missing", "empty", "file", "damaged"):
        with pytest.raises(InputError, match="holds no net") as error:
            read_checkpoint(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(error.value)


def test_values_that_are_not_finite(tmp_path):
    weights = random_weights()
    weights["fc_2"]["bias"][0] = np.nan
    write_checkpoint(deepid.from_weights(weights), tmp_path / "net")
    with pytest.raises(InputError, match="fc_2/bias holds values that are not finite"):
        read_checkpoint(tmp_path / "net")
