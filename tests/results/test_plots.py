"""Figures: what they show of the numbers that they are given, without a warning."""

import io
import warnings

import matplotlib.figure
import numpy as np
import pytest

from jaxdefend import InputError
from jaxdefend.results import plots
from jaxdefend.results.rates import Rate, wilson


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # matplotlib's own, of what it imports.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def drawn(figure) -> matplotlib.figure.Figure:
    """The figure, after it was rendered once."""
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def labels_of(axes):
    return axes.get_legend_handles_labels()[1]


def sweep_record(poisoned=("glasses",), test_counts=(9, 9, 7, 0)):
    counts = {"valid_accuracy": np.array([10, 9, 6, 1]), "test_accuracy": np.array(test_counts)}
    success = {name: np.array([10, 10, 8, 0]) for name in poisoned}
    return {
        "layer": "last",
        "order": [2, 0, 1],
        **{name: values / 10 for name, values in counts.items()},
        "attack_success": {name: values / 10 for name, values in success.items()},
        "intervals": {name: wilson(values, 10) for name, values in counts.items()}
        | {"attack_success": {name: wilson(values, 10) for name, values in success.items()}},
        "repairs": [{"drop": 2, "pruned": 1}, {"drop": 4, "pruned": 1}, {"drop": 30, "pruned": 2}],
    }


def test_a_curve_shows_accuracy_and_attack_with_the_drops():
    (axes,) = drawn(plots.curve_figure("net.h5", sweep_record())).axes
    assert labels_of(axes) == ["clean accuracy, validation", "clean accuracy, test", "attack success, glasses"]
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(x, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(y, [100, 90, 60, 10])
    assert [text.get_text() for text in axes.texts] == ["drop 2, 4", "drop 30"]
    assert axes.get_title(loc="left") == "net.h5" and "last" in axes.get_xlabel()


def test_one_accuracy_where_test_and_validation_are_the_same_images():
    (axes,) = drawn(plots.curve_figure("net.h5", sweep_record((), (10, 9, 6, 1)))).axes
    assert labels_of(axes) == ["clean accuracy, validation"]


def test_many_poisoned_sets_find_their_colours():
    drawn(plots.curve_figure("net.h5", sweep_record([f"set {number}" for number in range(12)])))


SCORES = {
    "clean": {"masks": -np.array([2.0, 1.5, 3.0]), "persistence": np.array([0.1, -0.4, 1.0])},
    "poisoned glasses": {"masks": -np.array([0.1, 0.0, 0.2]), "persistence": np.array([3.0, 2.0, 4.0])},
}
DRAWN = {"masks": ("entropy, bits", True), "persistence": ("standard deviations", False)}


def test_entropies_are_drawn_as_entropies():
    figure = drawn(plots.scores_figure("net.h5", SCORES, {"masks": -0.5, "persistence": 1.5}, DRAWN))
    masks, persistence = figure.axes
    assert (masks.get_xscale(), persistence.get_xscale()) == ("log", "linear")
    assert masks.lines[0].get_xdata()[0] == pytest.approx(0.5)
    assert persistence.lines[0].get_xdata()[0] == pytest.approx(1.5)
    assert masks.get_xlabel() == "entropy, bits"
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown == {"clean", "poisoned glasses", "threshold"}


def test_a_set_without_images_is_an_empty_histogram():
    scores = SCORES | {"poisoned none": {"masks": np.zeros(0), "persistence": np.zeros(0)}}
    drawn(plots.scores_figure("net.h5", scores, {"masks": -0.5, "persistence": 1.5}, DRAWN))


def test_error_curves_of_every_detector_a_panel_for_each_set():
    lipstick = {name: values - 0.5 for name, values in SCORES["poisoned glasses"].items()}
    figure = drawn(plots.errors_figure("net.h5", SCORES | {"lipstick": lipstick}))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["poisoned glasses", "lipstick"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["masks", "persistence"]
    for axes in figure.axes:
        masks, persistence = axes.lines[:2]
        assert labels_of(axes) == ["masks", "persistence"] and masks.get_color() != persistence.get_color()
        assert masks.get_linestyle() != persistence.get_linestyle()
    assert figure.axes[0].lines[0].get_color() == figure.axes[1].lines[0].get_color()


@pytest.mark.parametrize("more", [{}, {"poisoned none": {"masks": np.zeros(0), "persistence": np.zeros(0)}}])
def test_no_legend_where_nothing_is_poisoned(more):
    figure = drawn(plots.errors_figure("net.h5", {"clean": SCORES["clean"]} | more))
    assert not figure.legends


def test_superimposed_images_with_their_labels():
    overlays = np.zeros((2, 5, 4, 3), np.uint8)
    images = np.full((3, 5, 4, 3), 300.0, np.float32)
    figure = drawn(plots.superimposed_figure(overlays, {"clean": (images, np.array([3, 1, 2]))}))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["", "overlay", "overlay", "clean:\n3", "1", "2"]


def cells(poisoned):
    def cell(method, fraction, rate, accuracy, success):
        sets = {"glasses": {"attack_success": success}} if poisoned else {}
        return {
            "method": method,
            "fraction": fraction,
            "learning_rate": rate,
            "clean": {"accuracy": accuracy},
            "poisoned": sets,
        }

    return [
        cell("fine-prune", 0.5, 1e-3, 0.9, 0.1),
        cell("fine-prune", 0.5, 1e-2, 0.8, 0.2),
        cell("magnitude", 0.5, 1e-3, 0.7, 0.95),
        cell("magnitude", 0.5, 1e-2, 0.5, 0.0),
    ]


@pytest.mark.parametrize("poisoned", [True, False])
def test_a_grid_shows_every_cell_and_frames_the_chosen_one(poisoned):
    figure = drawn(plots.grid_figure("net.h5", cells(poisoned), 2))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes[:4]]
    assert [texts[0], texts[2]] == [["90.0", "80.0"], ["70.0", "50.0"]]
    if poisoned:
        assert [texts[1], texts[3]] == [["10.0", "20.0"], ["95.0", "0.0"]]
    assert [len(axes.patches) for axes in figure.axes] == [0, 0, 1, 1]


def test_rates_side_by_side():
    rates = {
        "BadNet": {"clean accuracy": Rate(9, 10), "ASR, glasses": Rate(10, 10)},
        "GoodNet": {"clean accuracy": Rate(8, 10), "ASR, glasses": Rate(0, 10)},
    }
    (axes,) = drawn(plots.rates_figure("net.h5", rates)).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([90, 80, 100, 0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["BadNet", "GoodNet"]


def test_a_history_of_loss_and_held_out_images():
    figure = drawn(plots.history_figure("noise", [(1, 0.5, 3), (2, 0.25, None)]))
    loss, held_out = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [0.5, 0.25])
    np.testing.assert_allclose(held_out.lines[0].get_ydata(), [3, np.nan])
    assert len(drawn(plots.history_figure("anp", [(1, 0.5, None)])).axes) == 1


def test_a_figure_is_a_png_file_or_none(tmp_path):
    figure = plots.errors_figure("net.h5", SCORES)
    plots.write_figure(tmp_path / "errors.png", figure)
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="cannot be written"):
        plots.write_figure(tmp_path / "missing" / "errors.png", figure)
    assert [path.name for path in tmp_path.iterdir()] == ["errors.png"]
