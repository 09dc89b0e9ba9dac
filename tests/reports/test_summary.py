"""The summary of a net, against numbers worked out by hand; its picture as XML."""

import xml.etree.ElementTree as ET

import pytest
from helpers import random_net, real
from small import small_net

from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_files import write_model
from jaxdefend.nets.kinds import Add, Conv2D, Dense, GlobalAveragePooling2D, InputLayer
from jaxdefend.nets.net import Net
from jaxdefend.reports import summarise
from jaxdefend.reports.summary import file_format


def test_parameters_and_multiply_adds():
    layers = {layer.name: layer for layer in summarise(small_net()).layers}
    first, last, answer = layers["first"], layers["last"], layers["answer"]
    assert first.shape == (10, 8, 4) and first.parameters == 3 * 3 * 3 * 4 + 4
    assert first.multiply_adds == 10 * 8 * 3 * 3 * 3 * 4
    assert (last.channels, last.zero) == (6, 0)
    assert answer.multiply_adds == 4 * 3 * 6 * 5
    assert layers["pooled"].multiply_adds == 0 and layers["pooled"].zero is None


def test_deepid_has_the_published_number_of_parameters():
    found = summarise(random_net(0, 1283))
    assert found.parameters == 601_643
    assert found.multiply_adds == 8_161_760


def test_zero_channels():
    found = summarise(small_net().pruned("last", [0, 5]))
    assert next(layer for layer in found.layers if layer.name == "last").zero == 2


def test_record_columns_table(made):
    found = made.summary
    assert found.record()["model"] == {"name": made.net.name, "sha256": "ab" * 32}
    assert {len(column) for column in found.columns().values()} == {6}
    assert "multiply-adds" in repr(found)


def test_the_picture_is_xml_in_which_names_stay_text():
    graph = Graph(
        (
            Layer("in<b>", InputLayer((6, 6, 3))),
            Layer("a&b", Conv2D(4, (3, 3)), ("in<b>",)),
            Layer("c", Conv2D(4, (1, 1)), ("a&b",)),
            Layer("sum", Add(), ("a&b", "c")),
            Layer("mean", GlobalAveragePooling2D(), ("sum",)),
            Layer("out", Dense(3), ("mean",)),
        ),
        "out",
    )
    net = Net(graph, random_net(graph=graph).weights, "unit")
    root = ET.fromstring(summarise(net).svg())
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"in<b>", "a&b", "out"} <= texts
    lines = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("marker-end")]
    assert len(lines) == 6


def test_format_of_the_file(tmp_path):
    write_model(random_net(0, 5), tmp_path / "net.h5")
    assert file_format(tmp_path / "net.h5") == "Keras 2 model (HDF5): architecture and weights"
    (tmp_path / "no.h5").write_text("no net")
    assert file_format(tmp_path / "no.h5") is None and file_format(tmp_path / "none.h5") is None


@pytest.mark.real
def test_format_of_a_real_file():
    assert file_format(real("weights/bd_weights.h5")) == "Keras 2 weights (HDF5)"
