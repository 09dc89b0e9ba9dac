"""python -m jaxdefend.report: from nets and images, and from results that are there."""

import numpy as np
import pytest
from helpers import command, refused, succeeds, write_official
from small import small_images, small_net

from jaxdefend.nets.keras_files import write_model


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A small net, its images, and the results of sweep, repair and detect."""
    folder = tmp_path_factory.mktemp("work")
    write_model(small_net(), folder / "<script>.h5")
    for name, seed in (("valid", 1), ("test", 2)):
        write_official(folder / f"{name}.h5", *small_images(40, seed))
    pixels, _ = small_images(30, 3)
    write_official(folder / "glasses.h5", pixels, np.full(30, 2))
    return folder


def sets(work):
    return ("<script>.h5", "--valid", "valid.h5", "--test", "test.h5", "--poisoned", "glasses.h5")


def test_a_report_of_a_net(work):
    done = succeeds("report", *sets(work), "--files", "files", cwd=work)
    assert "<script>.h5" in done.stdout and "written to report.html" in done.stderr
    text = (work / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;.h5" in text and "<script>.h5" not in text
    assert "python -m jaxdefend.sweep" in text and "python -m jaxdefend.detect evaluate" in text
    for name in ("graph.svg", "activations.png", "gallery.png", "confusions.csv", "drops.png", "summary.json"):
        assert (work / "files" / name).stat().st_size


def test_a_report_with_a_repaired_net_and_a_guard(work):
    succeeds("repair", *sets(work), "--method", "prune", "--channels", "1", "--out", "fixed", cwd=work)
    succeeds("detect", "calibrate", "<script>.h5", "--clean", "valid.h5", "--out", "guard", "--frr", "0.1", cwd=work)
    more = ("--repaired", "fixed/repaired.h5", "--guard", "guard/guard.json", "--out", "two.html")
    assert "Repair repaired" in succeeds("report", *sets(work), *more, cwd=work).stdout
    assert "Thresholds, from clean images alone" in (work / "two.html").read_text(encoding="utf-8")


def test_a_report_of_results(work):
    succeeds("sweep", *sets(work), "--drop", "2", "30", "--out", "swept", cwd=work)
    succeeds("repair", *sets(work), "--method", "clp", "--out", "clp", cwd=work)
    detect = ("<script>.h5", "--valid", "valid.h5", "--clean", "test.h5", "--poisoned", "glasses.h5", "--frr", "0.1")
    succeeds("detect", "evaluate", *detect, "--detector", "masks", "--out", "found", cwd=work)
    done = succeeds("report", "--from", "swept", "clp", "found", "--out", "three.html", cwd=work)
    assert "written to three.html" in done.stderr
    text = (work / "three.html").read_text(encoding="utf-8")
    for part in ("The pruning curve", "Repairs", "The guard", "python -m jaxdefend.repair"):
        assert part in text
    assert 'id="pruned"' not in text


def test_a_report_without_poisoned_and_test_images(work):
    done = succeeds("report", "<script>.h5", "--valid", "valid.h5", "--out", "four.html", "--files", "few", cwd=work)
    assert "no images with a trigger were given" in done.stdout
    text = (work / "four.html").read_text(encoding="utf-8")
    assert "Clean images that nothing was chosen by" in text and "Images with a trigger: none were given" in text


def test_bad_input(work):
    assert "no such folder" in refused("report", "--from", "nowhere", cwd=work)
    assert "leave out --valid" in refused("report", "--from", "nowhere", "--valid", "valid.h5", cwd=work)
    assert "is a folder" in refused("report", *sets(work), "--out", ".", cwd=work)
    assert "--layer" in refused("report", *sets(work), "--layer", "nothing", cwd=work)
    assert "no clean images" in refused("report", "<script>.h5", cwd=work)
    assert command("report", "--help").returncode == 0


def test_a_damaged_result_is_named(work, tmp_path):
    (tmp_path / "sweep.json").write_text('{"order": [0]}')
    assert "sweep.json" in refused("report", "--from", str(tmp_path), cwd=work)
    assert not (tmp_path / "report.html").exists()
