"""Mean activations of every channel, against the plain sum over the images."""

import matplotlib.figure
import numpy as np
import pytest
from small import CHANNELS, small_images, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.reports import activate


def test_maps_are_means_over_the_images_behind_the_pool(made):
    found = made.activations
    assert (found.layer, found.place, found.channels) == ("last", "pooled", CHANNELS)
    for name, pixels in {"clean": made.test[0], "<b>glasses</b>": made.poisoned["<b>glasses</b>"][0]}.items():
        expected = np.asarray(small_net().features(pixels, ("pooled",))["pooled"]).mean(axis=0)
        np.testing.assert_allclose(found.maps[name], expected, rtol=1e-5)
        np.testing.assert_allclose(found.means(name), expected.mean(axis=(0, 1)), rtol=1e-5)
        assert found.n[name] == len(pixels)


def test_responsive_channels_are_those_above_clean_the_most_first(made):
    found = made.activations
    (name,) = found.poisoned
    difference = found.means(name) - found.means()
    more = found.responsive(name)
    assert set(more.tolist()) == set(np.flatnonzero(difference > 0).tolist())
    assert (np.diff(difference[more]) <= 0).all()


def test_silent_channels_are_those_that_were_pruned():
    net = small_net().pruned("last", [1, 4])
    found = activate(net, small_pixels(9))
    before = set(activate(small_net(), small_pixels(9)).silent().tolist())
    assert set(found.silent().tolist()) == {1, 4} | before != before
    assert found.poisoned == [] and found.table()


def test_another_layer(made):
    assert activate(made.net, made.test, layer="first").maps["clean"].shape[-1] == 4
    with pytest.raises(InputError, match="layer pooled"):
        activate(made.net, made.test, layer="pooled")
    with pytest.raises(InputError, match="called 'clean'"):
        activate(made.net, made.test, {"clean": made.test})


def test_record_columns_and_figures(made):
    found = made.activations
    assert list(found.record()) == ["net", "layer", "place", "n", "mean_activation", "silent", "responsive"]
    assert {len(column) for column in found.columns().values()} == {CHANNELS}
    for figure in (found.figure(), found.bars_figure()):
        assert isinstance(figure, matplotlib.figure.Figure)
        title = figure.get_suptitle()
        assert "32 clean" in title.replace("\n", " ") and "last" in title
    assert "channel" in repr(found)


def test_few_images_of_any_number_give_the_same():
    pixels, _ = small_images(5, 4)
    both = activate(small_net(), np.concatenate([pixels, pixels])).maps["clean"]
    np.testing.assert_allclose(both, activate(small_net(), pixels).maps["clean"], rtol=1e-6)
