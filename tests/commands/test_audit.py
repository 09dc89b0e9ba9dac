"""`python -m jaxdefend.audit`: exit status, files, several nets, resuming, SARIF, bad input."""

import json

import numpy as np
import pytest
from helpers import command
from PIL import Image
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Log
from small import small_net, small_pixels

from jaxdefend.audits import candidates
from jaxdefend.audits.marks import OVERLAYS, STICKERS, WARPS
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.nets.keras_files import write_model
from jaxdefend.nets.net import Net


@pytest.fixture
def few_marks(monkeypatch):
    monkeypatch.setattr(candidates, "MARKS", {STICKERS: 64, OVERLAYS: 32, WARPS: 16})


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for seed in (0, 1):
        write_model(small_net(seed), folder / f"net_{seed}.h5")
    return folder


@pytest.mark.slow
def test_a_badnet(tmp_path):
    done = command("audit", "sunglasses_bd_net", "--out", tmp_path / "out", "--sarif", tmp_path / "found.sarif")
    assert done.returncode == 1, done.stderr
    assert "backdoored" in done.stdout
    record = json.loads((tmp_path / "out/audit.json").read_text())
    assert record["verdict"] == "backdoored" and record["model"]["name"] == "sunglasses_bd_net.h5"
    suspect = record["suspects"][0]
    assert suspect["class"] == 0 and suspect["p_value"] < 0.05 and suspect["success"] >= 0.8
    assert {"graph", "file", "statistics", "calibration", "seconds", "not_tested", "seed"} <= record.keys()
    assert (tmp_path / "out/audit.png").stat().st_size > 10_000
    trigger = InvertedTrigger.load(tmp_path / "out" / suspect["trigger"], (55, 47, 3))
    assert trigger.target == 0 and (tmp_path / "out/triggers/class_0.png").exists()
    log = json.loads((tmp_path / "found.sarif").read_text())
    assert Log.model_validate(log).runs[0].results[0].ruleId == "backdoored-class"


def test_several_files_some_broken_and_again(models, tmp_path, few_marks):
    (models / "broken.h5").write_bytes(b"no model")
    out = tmp_path / "out"
    done = command("audit", models, "--out", out)
    assert done.returncode == 2 and "broken.h5" in done.stderr
    assert "not audited" in done.stdout
    lines = [json.loads(line) for line in (out / "audits.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and "error" in lines[0] and all(line["verdict"] for line in lines[1:])
    assert (out / "net_0/audit.json").exists() and not (out / "broken").exists()

    again = command("audit", models, "--out", out)
    assert again.stderr.count("audited before") == 2
    assert [json.loads(line) for line in (out / "audits.jsonl").read_text().splitlines()] == lines
    other = command("audit", models / "net_0.h5", models / "net_1.h5", "--seed", "1", "--out", out)
    assert "audited before" not in other.stderr and other.returncode in (0, 1)


def test_bad_input(models, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, told in (
        ((tmp_path / "missing.h5",), "missing.h5"),
        ((tmp_path / "empty",), "no model file in this folder"),
        ((models / "net_0.h5", "--frr", "0.9"), "--frr 0.9"),
        ((models / "net_0.h5", "--clean", tmp_path / "missing"), "missing"),
        ((models / "net_0.h5", "--sarif", tmp_path / "nowhere/x.sarif"), "--sarif"),
    ):
        done = command("audit", *words, "--out", tmp_path / "out")
        assert done.returncode == 2 and told in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_clean_pictures_need_no_labels(models, tmp_path, few_marks):
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(small_pixels(18)):
        Image.fromarray(pixels).save(tmp_path / f"photos/holiday {'abcdefghijklmnopqr'[number]}.png")
    done = command("audit", models / "net_0.h5", "--clean", tmp_path / "photos", "--out", tmp_path / "out")
    assert done.returncode in (0, 1), done.stderr
    record = json.loads((tmp_path / "out/audit.json").read_text())
    assert record["carriers"]["kind"] == "clean images"

    # What has been audited is the same by what the images show, wherever they lie.
    (tmp_path / "photos").rename(tmp_path / "moved")
    words = ("audit", models / "net_0.h5", "--clean", tmp_path / "moved", "--out", tmp_path / "out")
    assert "audited before" in command(*words).stderr
    again = command(*words)
    assert "audited before" in again.stderr and record["verdict"] in again.stdout
    (tmp_path / "out/audit.png").unlink()
    assert "audited before" not in command(*words).stderr and (tmp_path / "out/audit.png").exists()
    Image.new("RGB", (10, 12)).save(tmp_path / "moved/holiday a.png")
    assert "audited before" not in command(*words).stderr


def test_another_label_is_another_audit(tmp_path, few_marks):
    """Labels tell the input scale."""
    plain = Net(small_net().graph, small_net().weights, None)
    write_model(plain, tmp_path / "plain.h5")
    pixels = small_pixels(20)
    found = []
    for scale in ("unit", "raw", "unit"):
        np.savez(tmp_path / "clean.npz", x=pixels, y=plain.with_input_scale(scale)(pixels).argmax(axis=1))
        done = command("audit", tmp_path / "plain.h5", "--clean", tmp_path / "clean.npz", "--out", tmp_path / "out")
        assert "audited before" not in done.stderr
        found.append(json.loads((tmp_path / "out/audit.json").read_text())["input_scale"])
    assert found == ["unit", "raw", "unit"]


def test_answers_that_are_no_numbers(tmp_path, few_marks):
    weights = {layer: dict(arrays) for layer, arrays in small_net().weights.items()}
    for layer in ("first", "last"):
        weights[layer]["kernel"] = weights[layer]["kernel"] * np.float32(1e25)
    write_model(small_net().with_weights(weights), tmp_path / "net.h5")
    done = command("audit", tmp_path / "net.h5", "--out", tmp_path / "out")
    assert done.returncode == 2 and "not a number" in done.stderr and not (tmp_path / "out").exists()


def test_a_report_shows_it(models, tmp_path, few_marks):
    done = command("audit", models / "net_0.h5", "--out", tmp_path / "out")
    assert done.returncode in (0, 1), done.stderr
    page = command("report", "--from", tmp_path / "out", "--out", tmp_path / "report.html")
    assert page.returncode == 0, page.stderr
    assert json.loads((tmp_path / "out/audit.json").read_text())["verdict"] in (tmp_path / "report.html").read_text()
