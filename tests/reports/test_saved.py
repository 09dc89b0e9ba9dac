"""Results read from files."""

import json

import numpy as np
import pytest

from jaxdefend import InputError
from jaxdefend.reports import read_saved
from jaxdefend.results.records import write_csv, write_json


def test_results_of_folders_and_files_in_the_order_of_a_report(made, tmp_path):
    write_json(tmp_path / "detect.json", {"model": None, **made.evaluation.record()})
    write_csv(tmp_path / "detect.csv", made.evaluation.columns())
    (tmp_path / "other.json").write_text("{}")
    swept = tmp_path / "a" / "sweep.json"
    swept.parent.mkdir()
    write_json(swept, made.sweep.record())
    found = read_saved([tmp_path, str(swept)])
    assert [each.kind for each in found] == ["sweep", "detect"]
    scores = found[1].scores()
    for name, by_detector in made.evaluation.scores.items():
        for detector, values in by_detector.items():
            hit = values if name == "clean" else values[made.evaluation.correct[name]]
            np.testing.assert_allclose(scores[name][detector], hit)
    assert found[0].scores() == {}


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": ' * 100_000])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json"):
        read_saved([tmp_path])


def test_a_folder_without_results(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        read_saved([tmp_path])
    with pytest.raises(InputError, match="no such folder"):
        read_saved([tmp_path / "none"])
    (tmp_path / "detect.json").write_text(json.dumps({}))
    (tmp_path / "detect.csv").write_text("set,label,predicted,a_score\nclean,0,0,none")
    with pytest.raises(InputError, match=r"detect\.csv"):
        read_saved([tmp_path])[0].scores()
