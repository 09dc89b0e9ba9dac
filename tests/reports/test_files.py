"""Every figure and table as a file."""

import json

from jaxdefend.reports.files import write_files


def test_every_result_has_its_files(made, tmp_path):
    names = write_files(tmp_path / "out", made.results, {"command": "here"})
    expected = {
        "summary.json", "layers.csv", "graph.svg", "sweep.png", "drops.png", "measurement.png", "detect.csv",
        "histogram.png", "errors.png", "activations.png", "activations_sorted.png", "activations.csv", "samples.png",
        "gallery.png", "gallery.json", "confusions.png", "confusions.csv", "confusions.json", "under_masks.png",
        "under_overlays.png", "training_fine-prune.png",
    }  # fmt: skip
    assert expected <= set(names)
    assert all((tmp_path / "out" / name).stat().st_size for name in names)
    assert json.loads((tmp_path / "out" / "gallery.json").read_text())["command"] == "here"


def test_an_earlier_gallery_goes_and_other_files_stay(made, tmp_path):
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "old.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    write_files(tmp_path, [made.gallery])
    assert not (tmp_path / "gallery" / "old.png").exists() and (tmp_path / "notes.txt").exists()
