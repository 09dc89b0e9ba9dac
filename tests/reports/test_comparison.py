"""One table of nets × repairs × detectors: counts by hand, every cell once, rows that come back from a file."""

import json

import numpy as np
import pytest
from small import small_images, small_net

from jaxdefend import InputError, detectors, measure
from jaxdefend.repairs import FinePrune, Prune
from jaxdefend.reports import cells, compare, comparing, comparison, together
from jaxdefend.reports.comparison import rows_of
from jaxdefend.results.rates import Rate, defense_effectiveness

REPAIRS = {"prune": Prune(channels=2), "fine": FinePrune(epochs=2, batch=8, channels=1)}
DETECTORS = {
    "masks": detectors.Masks(masks=5),
    "strip": detectors.Strip(overlays=3),
    "both": detectors.Both(masks=5, keep=0.4, overlays=3),
    "strip:overlays=4": detectors.Strip(overlays=4),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cells")


def compared(made, folder, **more):
    how = {"repairs": REPAIRS, "repaired": {"file": small_net(2)}, "detectors": DETECTORS, "frr": 0.1, "name": "<b>"}
    return compare(
        made.net, made.valid, {"glasses": made.poisoned["<b>glasses</b>"]}, test=made.test, folder=folder, **how | more
    )


@pytest.fixture(scope="module")
def found(made, folder):
    return compared(made, folder)


def row(found, repair="–", form="net", detector="–"):
    (row,) = [r for r in found.rows if (r.repair, r.form, r.detector) == (repair, form, detector)]
    return row


def test_rates_are_those_of_measure(made, found):
    fixed = Prune(channels=2)(made.net, made.valid).net
    glasses = {"glasses": made.poisoned["<b>glasses</b>"]}
    measured = measure({"badnet": made.net, "repaired": fixed}, made.test, glasses)
    for form, name in (("net", "repaired"), ("goodnet", "goodnet")):
        own = row(found, "prune", form)
        assert own.clean == measured.clean[name].hits
        assert own.poisoned == {"glasses": measured.poisoned["glasses"][name].hits}
        assert own.der == measured.effectiveness(name)
    assert row(found).clean == measured.clean["badnet"].hits
    assert row(found, "prune", "goodnet").frr == measured.clean["goodnet"].flagged


def test_detectors_are_those_of_evaluate(made, found):
    guard = detectors.calibrate([DETECTORS["both"]], made.net, made.valid, frr=0.1)
    evaluated = detectors.evaluate(guard, made.test, {"glasses": made.poisoned["<b>glasses</b>"]})
    for name in ("masks", "strip", "both"):
        own, expected = row(found, detector=name), evaluated.by_detector[name]
        assert own.threshold == expected.calibrated.threshold
        assert (own.frr, own.clean) == (expected.frr, expected.guarded)
        assert own.poisoned["glasses"] == expected.poisoned["glasses"].guarded
        assert own.auroc["glasses"].auroc == expected.poisoned["glasses"].where_hit.auroc
    assert row(found, detector="masks").in_bits and not row(found, detector="both").in_bits


def test_a_goodnet_behind_a_detector_lets_pass_what_both_do(made, found):
    fixed = small_net(2)
    labels, after = (net(made.test[0]).argmax(axis=1) for net in (made.net, fixed))
    guard = detectors.calibrate([DETECTORS["masks"]], made.net, made.valid, frr=0.1)
    passes = ~guard(made.test[0]).rejected
    correct = (labels == after) & (labels == made.test[1]) & passes
    own = row(found, "file", "goodnet", "masks")
    assert own.clean == Rate(int(correct.sum()), 32)
    assert own.frr == Rate(int((~passes | (labels != after)).sum()), 32)
    before = row(found)
    assert own.der == defense_effectiveness((before.clean, before.poisoned), (own.clean, own.poisoned))


def test_nothing_is_computed_twice(made, folder, found, monkeypatch):
    def never(*arguments, **more):
        raise AssertionError("computed again")

    for name in ("predicted", "calibrate", "evaluate"):
        monkeypatch.setattr(comparing, name, never)
    monkeypatch.setattr(FinePrune, "__call__", never)
    monkeypatch.setattr(Prune, "__call__", never)
    assert compared(made, folder).record() == found.record()


def test_what_changes_is_computed(made, folder, found):
    others = compared(made, folder, repairs={"prune": Prune(channels=4)}, detectors={}, repaired={})
    assert row(others, "prune").clean == Rate(
        int(
            (
                made.net.pruned("last", Prune(channels=4)(made.net, made.valid).chosen["channels"])(
                    made.test[0]
                ).argmax(axis=1)
                == made.test[1]
            ).sum()
        ),
        32,
    )
    other_net = compare(small_net(3), made.valid, test=made.test, folder=folder)
    assert row(other_net).clean == measure(small_net(3), made.test).clean["badnet"].hits


def test_a_damaged_cell_is_computed_again(made, tmp_path):
    first = compared(made, tmp_path, detectors={}, repaired={})
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    again = compared(made, tmp_path, detectors={}, repaired={})
    assert [r.clean for r in again.rows] == [r.clean for r in first.rows]


def test_fewer_images_for_detectors(made):
    own = compared(made, None, repairs={}, repaired={}, detectors={"masks": DETECTORS["masks"]}, limit=10)
    assert row(own).clean.n == 32 and row(own, detector="masks").clean.n == 8


def test_tables_and_files(made, found):
    assert "Repairs" in repr(found) and "GoodNets behind detectors" in repr(found)
    markdown = found.markdown()
    assert "<b>" not in markdown and "&lt;b&gt;" in markdown and "| --- |" in markdown
    columns = found.columns()
    assert {len(column) for column in columns.values()} == {len(found.rows)}
    record = json.loads(json.dumps(found.record()))
    assert rows_of(record)[0].clean == found.rows[0].clean
    assert comparison.Comparison(rows_of(record)).markdown() == markdown
    with pytest.raises(InputError, match="not the rows"):
        rows_of({"rows": [{"net": "a"}]})


def test_scores_come_back_from_a_file(found, tmp_path):
    cells.write_scores(tmp_path / "scores.npz", found.scores)
    kept = cells.read_scores(tmp_path / "scores.npz")["<b>"]
    own = found.scores["<b>"]
    assert (kept.thresholds, kept.drawn) == (own.thresholds, own.drawn)
    for name, by_detector in own.scores.items():
        for detector, values in by_detector.items():
            np.testing.assert_array_equal(kept.scores[name][detector], values)
    (tmp_path / "scores.npz").write_bytes(b"PK")
    assert cells.read_scores(tmp_path / "scores.npz") == {}
    assert cells.read_scores(tmp_path / "none.npz") == {}


def test_figures(found):
    for figure in (found.figure(), found.histograms_figure(), found.errors_figure()):
        assert figure.axes


def test_several_nets_in_one_table(made, found):
    other = compare(small_net(4), made.valid, name="other")
    both = together([found, other])
    assert [r.net for r in both.rows] == ["<b>"] * len(found.rows) + ["other"]
    assert both.figure() and list(both.scores) == ["<b>"]
    assert "–" in both.table()
    with pytest.raises(InputError, match="no scores"):
        other.histograms_figure()


def test_bad_input(made):
    with pytest.raises(InputError, match="asks a repaired net"):
        compared(made, None, detectors={"goodnet": detectors.GoodNet()})
    with pytest.raises(InputError, match="called 'clean'"):
        compare(made.net, made.valid, {"clean": made.test})
    with pytest.raises(InputError, match="no labels"):
        compare(made.net, made.valid[0])
    pixels, labels = small_images(8)
    assert compare(small_net(), (np.asarray(pixels), labels)).rows[0].clean.n == 8
