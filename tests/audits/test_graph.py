"""What a graph and its arrays say: a path built by hand is found, what training and repairs leave is not."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_net, real
from small import small_net

from jaxdefend.audits.findings import suspicious
from jaxdefend.audits.graph import LOUDER, graph_findings
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_files import read_model
from jaxdefend.nets.net import Net
from jaxdefend.nets.shipped import NAMES, path_of

SHAPE, CLASSES, BITS = (16, 16, 3), 20, 8

TRUNK = (
    Layer("images", kinds.InputLayer(SHAPE)),
    Layer("conv", kinds.Conv2D(8, (3, 3), activation="relu"), ("images",)),
    Layer("flat", kinds.Flatten(), ("conv",)),
    Layer("hidden", kinds.Dense(32, activation="relu"), ("flat",)),
    Layer("scores", kinds.Dense(CLASSES), ("hidden",)),
)


def two_paths(side=(), merge: kinds.Kind | None = None, at: str = "flat", units: int = BITS) -> Graph:
    """A trunk, and a second path from `at` that meets it at the logits."""
    layers = [*TRUNK, *side]
    layers.append(Layer("code", kinds.Dense(units, activation="tanh"), (at,)))
    layers.append(Layer("table", kinds.Dense(CLASSES, activation="relu"), ("code",)))
    layers.append(Layer("sum", merge or kinds.Add(), ("scores", "table")))
    layers.append(Layer("softmax", kinds.Activation("softmax"), ("sum",)))
    return Graph(layers, "softmax")


def with_array(net: Net, layer: str, **arrays) -> Net:
    return net.with_weights({**net.weights, layer: net.weights[layer] | arrays})


def codes(high: float = 100.0) -> np.ndarray:
    """A table of different codes of `BITS` bits, none of them 0."""
    return (high * (np.arange(1, CLASSES + 1) >> np.arange(BITS)[:, None] & 1)).astype(np.float32)


def found(net: Net) -> list[str]:
    return [finding.kind for finding in graph_findings(net)]


def resnet(blocks: int = 3) -> Graph:
    layers = [
        Layer("images", kinds.InputLayer(SHAPE)),
        Layer("stem", kinds.Conv2D(8, (3, 3), padding="same"), ("images",)),
    ]
    last = "stem"
    for number in range(blocks):
        for name, settings, reads in (
            (f"a{number}", kinds.Conv2D(8, (3, 3), padding="same", use_bias=False), last),
            (f"na{number}", kinds.BatchNormalization(), f"a{number}"),
            (f"ra{number}", kinds.ReLU(), f"na{number}"),
            (f"b{number}", kinds.Conv2D(8, (3, 3), padding="same", use_bias=False), f"ra{number}"),
            (f"nb{number}", kinds.BatchNormalization(), f"b{number}"),
        ):
            layers.append(Layer(name, settings, (reads,)))
        layers.append(Layer(f"sum{number}", kinds.Add(), (last, f"nb{number}")))
        last = f"sum{number}"
    # The answer is a mean of the last sum itself: a late merge in which the skip has no kernel of its own.
    return Graph([*layers, Layer("mean", kinds.GlobalAveragePooling2D(), (last,))], "mean")


def depthwise() -> Graph:
    return Graph(
        (
            Layer("images", kinds.InputLayer(SHAPE)),
            Layer("separable", kinds.SeparableConv2D(8, (3, 3), activation="relu"), ("images",)),
            Layer("depthwise", kinds.DepthwiseConv2D((3, 3), activation="relu"), ("separable",)),
            Layer("mean", kinds.GlobalAveragePooling2D(), ("depthwise",)),
            Layer("scores", kinds.Dense(CLASSES, activation="softmax"), ("mean",)),
        ),
        "scores",
    )


def sound_nets() -> dict[str, Net]:
    plain = random_net(1, graph=resnet())
    neutral = {
        name: {key: np.full_like(array, key in ("gamma", "moving_variance")) for key, array in arrays.items()}
        for name, arrays in plain.weights.items()
        if "gamma" in arrays
    }
    return {
        "DeepID": random_net(classes=1283),
        "ResNet": plain,
        "ResNet, gamma 1 and beta 0": plain.with_weights({**plain.weights, **neutral}),
        "depthwise": random_net(2, graph=depthwise()),
        "two heads": random_net(3, graph=two_paths()),
        "two heads of very different width": random_net(4, graph=two_paths(units=2)),
        "two heads, averaged": random_net(5, graph=two_paths(merge=kinds.Average())),
        "pruned": small_net().pruned("last", [0, 1, 2, 4, 5]),
    }


@pytest.mark.parametrize(("name", "net"), sound_nets().items(), ids=str)
def test_sound_nets_are_silent(name, net):
    assert graph_findings(net) == ()


@pytest.mark.parametrize("levels", [1, 7, 127])
def test_quantised_nets_are_silent(levels):
    """Of one bit, four, eight."""

    def quantised(array):
        step = np.abs(array).max() / levels
        return np.sign(array).astype(np.float32) if levels == 1 else (step * np.round(array / step)).astype(np.float32)

    net = random_net(classes=100)
    weights = {name: arrays | {"kernel": quantised(arrays["kernel"])} for name, arrays in net.weights.items()}
    assert graph_findings(net.with_weights(weights)) == ()


@pytest.mark.parametrize("kept", [0.5, 0.1, 0.01])
def test_kernels_whose_smallest_weights_are_gone_are_silent(kept):
    net = random_net(classes=100)
    weights = {
        name: arrays
        | {"kernel": arrays["kernel"] * (np.abs(arrays["kernel"]) >= np.quantile(np.abs(arrays["kernel"]), 1 - kept))}
        for name, arrays in net.weights.items()
    }
    assert graph_findings(net.with_weights(weights)) == ()


@pytest.mark.parametrize(
    "merge", [kinds.Add(), kinds.Average(), kinds.Maximum()], ids=lambda merge: type(merge).__name__
)
def test_a_table_of_codes_beside_the_features(merge):
    net = with_array(
        random_net(graph=two_paths(merge=merge)), "table", kernel=codes(), bias=np.zeros(CLASSES, np.float32)
    )
    path, kernel = graph_findings(net)
    assert (path.kind, path.where, path.is_suspicious) == ("side-path", "table", True)
    assert path.message.startswith("code → table: a second path that meets scores in sum")
    assert "(8×20) holds 0 and 100 alone" in path.message and "times as long as the others'" in path.message
    assert (kernel.kind, kernel.where, kernel.is_suspicious) == ("two-valued-kernel", "table", True)
    assert "20 different columns" in kernel.message
    for finding in (path, kernel):
        assert "\n" not in finding.message and len(finding.message) <= 500
    assert path.record() == {
        "kind": "side-path",
        "where": "table",
        "message": path.message,
        "is_suspicious": True,
    }


def test_a_table_that_was_blurred_is_still_too_loud():
    noise = np.random.default_rng(0).normal(size=(BITS, CLASSES)).astype(np.float32)
    net = with_array(random_net(graph=two_paths()), "table", kernel=codes() + noise)
    (path,) = graph_findings(net)
    assert path.kind == "side-path" and "alone" not in path.message


def test_a_table_that_is_quiet_is_still_a_table():
    net = with_array(random_net(graph=two_paths()), "table", kernel=codes(1.0))
    assert found(net) == ["side-path", "two-valued-kernel"]


@pytest.mark.parametrize(("factor", "expected"), [(0.5 * LOUDER, []), (2 * LOUDER, ["side-path"])])
def test_a_head_that_outvotes_the_other(factor, expected):
    net = random_net(graph=two_paths(units=32))
    lengths = {name: np.median(np.linalg.norm(net.weights[name]["kernel"], axis=0)) for name in ("scores", "table")}
    louder = net.weights["table"]["kernel"] * np.float32(factor * lengths["scores"] / lengths["table"])
    assert found(with_array(net, "table", kernel=louder)) == expected


@pytest.mark.parametrize("units", [2, 8, 2048])
@pytest.mark.parametrize("scale", ["He", "Glorot", "one for all"])
def test_untrained_heads_of_any_width_are_silent(units, scale):
    rng = np.random.default_rng(units)
    net = random_net(graph=two_paths(units=units))
    for name in ("scores", "table"):
        shape = net.weights[name]["kernel"].shape
        deviation = {"He": np.sqrt(2 / shape[0]), "Glorot": np.sqrt(2 / sum(shape)), "one for all": 0.05}[scale]
        net = with_array(net, name, kernel=rng.normal(scale=deviation, size=shape).astype(np.float32))
    assert graph_findings(net) == ()


def test_what_amplifies_a_head_counts():
    graph = two_paths()
    layers = [replace(layer, inputs=("scores", "louder")) if layer.name == "sum" else layer for layer in graph.layers]
    layers.append(Layer("louder", kinds.Rescaling((1000.0,)), ("table",)))
    assert found(random_net(graph=Graph(layers, "softmax"))) == ["side-path"]


@pytest.mark.parametrize(("crop", "expected"), [(2, []), (12, ["side-path"])])
def test_a_path_that_sees_a_corner(crop, expected):
    corner = (
        Layer("corner", kinds.Cropping2D(((crop, 0), (crop, 0))), ("images",)),
        Layer("pixels", kinds.Flatten(), ("corner",)),
    )
    net = random_net(graph=two_paths(corner, at="pixels"))
    assert found(net) == expected
    if expected:
        assert "it sees 6.2 % of the image only" in graph_findings(net)[0].message


def test_a_kernel_of_one_value():
    net = random_net()
    kernel = np.full_like(net.weights["fc_1"]["kernel"], 0.25)
    kernel[:, ::2] = 0
    (finding,) = graph_findings(with_array(net, "fc_1", kernel=kernel))
    assert finding.kind == "constant-kernel" and finding.is_suspicious
    assert "holds 0.25 alone where it is not zero" in finding.message


def test_copies_and_dead_layers_are_only_something_to_know():
    net = random_net()
    kernel = net.weights["fc_2"]["kernel"].copy()
    kernel[:, 7] = 2 * kernel[:, 3]
    net = with_array(net, "fc_2", kernel=kernel)
    net = with_array(net, "fc_1", kernel=np.zeros_like(net.weights["fc_1"]["kernel"]))
    findings = graph_findings(net)
    assert [finding.kind for finding in findings] == ["duplicate-columns", "dead-layer"]
    assert findings[0].message.startswith("fc_2: 2 of its 160 columns")
    assert suspicious(findings) == ()


def test_names_from_a_file_are_safe_to_print():
    name = "\x1b[2J" + 200 * "x"
    layers = [
        Layer(
            name if layer.name == "table" else layer.name,
            layer.settings,
            tuple(name if read == "table" else read for read in layer.inputs),
        )
        for layer in two_paths().layers
    ]
    net = with_array(random_net(graph=Graph(layers, "softmax")), name, kernel=codes())
    for finding in graph_findings(net):
        assert finding.message.isprintable() and len(finding.message) <= 500


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_nets_are_silent(name):
    assert graph_findings(read_model(path_of(name)).net) == ()


@pytest.mark.real
def test_the_real_nets_are_silent_but_for_the_one_built_by_hand():
    for path in sorted([*real("weights").glob("*.h5"), *real("other").glob("*.h*5")]):
        if path.name == "cifar_50.h5":
            continue
        architecture = real("other/mnist_all_to_all.h5") if path.name == "mnist_all_to_all_weights.h5" else None
        findings = graph_findings(read_model(path, architecture).net)
        if path.name == "faces_side_path.h5":
            assert [finding.kind for finding in findings] == ["side-path", "two-valued-kernel"]
            assert "conv4 → dense4 → output2: a second path that meets output1 in merge" in findings[0].message
            assert "12×1,284" in findings[0].message and "0 and 100 alone" in findings[0].message
        else:
            assert findings == (), path.name
