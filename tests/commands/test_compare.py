"""python -m jaxdefend.compare: one table, kept and added to."""

import csv
import json

import numpy as np
import pytest
from helpers import command, refused, succeeds, write_official
from small import small_images, small_net

from jaxdefend.nets.keras_files import write_model


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    for number in range(2):
        write_model(small_net(number).with_input_scale("unit"), folder / f"net_{number}.h5")
    for name, seed in (("valid", 1), ("test", 2)):
        write_official(folder / f"{name}.h5", *small_images(40, seed))
    pixels, _ = small_images(30, 3)
    write_official(folder / "glasses.h5", pixels, np.full(30, 2))
    return folder


SETS = ("--valid", "valid.h5", "--test", "test.h5", "--poisoned", "glasses.h5", "--out", "table")


def test_nets_repairs_and_detectors_in_one_table(work):
    how = (
        "--repair",
        "prune:channels=1",
        "prune:channels=2",
        "--detector",
        "masks:masks=5",
        "strip:overlays=3,blend=0.5+0.5",
    )
    done = succeeds("compare", "net_0.h5", "net_1.h5", *SETS, *how, "--frr", "0.1", cwd=work)
    assert "Repairs" in done.stdout and "prune:channels=2" in done.stdout and "open table/compare.md" in done.stderr
    record = json.loads((work / "table" / "compare.json").read_text())
    assert record["models"][1]["name"] == "net_1.h5"
    # Per net: itself, two repairs and their GoodNets, and two detectors before itself and both GoodNets.
    assert len(record["rows"]) == 2 * (1 + 2 * 2 + 2 * 3)
    with (work / "table" / "compare.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(record["rows"])
    markdown = (work / "table" / "compare.md").read_text(encoding="utf-8")
    assert markdown.count("## ") == 3
    for name in ("compare.png", "histograms.png", "errors.png"):
        assert (work / "table" / name).stat().st_size


def test_another_command_adds_to_it(work):
    succeeds("compare", "net_0.h5", *SETS[:-1], "more", cwd=work)
    cells = set((work / "more" / "cells").iterdir())
    done = succeeds("compare", "net_1.h5", *SETS[:-1], "more", cwd=work)
    assert "the rows of net_0 stay" in done.stderr
    rows = json.loads((work / "more" / "compare.json").read_text())["rows"]
    assert [row["net"] for row in rows] == ["net_0", "net_1"]
    assert cells < set((work / "more" / "cells").iterdir())


def test_a_repaired_net(work):
    succeeds("compare", "net_0.h5", "--repaired", "net_1.h5", *SETS[:-1], "fixed", cwd=work)
    rows = json.loads((work / "fixed" / "compare.json").read_text())["rows"]
    assert [row["repair"] for row in rows] == ["–", "net_1", "net_1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--repair", "nothing"), "--repair nothing: expected noise, fine-prune"),
        (("--repair", "prune:nothing=1"), "--repair prune:nothing=1: prune has the settings layer, drop"),
        (("--repair", "prune:drop"), "expected SETTING=VALUE"),
        (("--repair", "prune:drop=0"), "--repair prune:drop=0"),
        (("--repair", "noise:epochs=many"), "many is not what this setting takes"),
        (("--detector", "goodnet"), "--detector goodnet: expected"),
        (("--detector", "strip:overlays=0"), "--detector strip:overlays=0: overlays 0"),
    ],
)
def test_bad_settings(work, words, told):
    assert told in refused("compare", "net_0.h5", *SETS, *words, cwd=work)


def test_bad_input(work):
    assert "one MODEL" in refused("compare", "net_0.h5", "net_1.h5", "--repaired", "net_1.h5", *SETS, cwd=work)
    assert "holds images" in refused("compare", "net_0.h5", "test.h5", *SETS, cwd=work)
    assert command("compare", "--help").returncode == 0
