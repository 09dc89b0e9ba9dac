"""What a net's architecture holds beside layers of known kinds: code, and names of code. Read as data."""

import json
from collections.abc import Iterator
from typing import Any

from jaxdefend import InputError
from jaxdefend.audits.findings import Finding
from jaxdefend.nets import kinds
from jaxdefend.nets.keras_json import KERAS, MODELS, PRUNING_WRAPPER, class_of
from jaxdefend.results.text import printable

# Keras's layers that are not among `nets.kinds`.
_OTHERS = frozenset(
    """
    AdditiveAttention AlphaDropout Attention AugMix AutoContrast AveragePooling1D AveragePooling3D Bidirectional
    CategoryEncoding CenterCrop Conv1D Conv1DTranspose Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D
    ConvLSTM2D ConvLSTM3D Convolution2D Cropping1D Cropping3D CutMix DepthwiseConv1D Discretization Dot
    EinsumDense Embedding Equalization FlaxLayer GRU GRUCell GlobalAveragePooling1D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity
    IntegerLookup JaxLayer LSTM LSTMCell LocallyConnected1D LocallyConnected2D Masking MaxNumBoundingBoxes
    MaxPooling1D MaxPooling3D MelSpectrogram MixUp MultiHeadAttention PReLU Pipeline RMSNormalization RNN
    RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomWidth RandomZoom RepeatVector Resizing STFTSpectrogram SeparableConv1D
    SeparableConvolution2D SimpleRNN SimpleRNNCell SlicingOpLambda Solarization SpatialDropout1D
    SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup TFOpLambda TFSMLayer TensorFlowOpLayer
    TextVectorization ThresholdedReLU TimeDistributed TorchModuleWrapper UnitNormalization UpSampling1D
    UpSampling3D ZeroPadding1D ZeroPadding3D
    """.split()  # noqa: SIM905
)

# A layer that runs what it is given: another file, a function, a module.
_RUNS = ("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")

# Where Keras says that a function of the user's own comes from.
_OWN = ("builtins", "__main__")


def architecture_findings(text: str | bytes) -> list[Finding]:
    """Code in the JSON of a Keras model ("code", suspicious), and layers and functions that are not Keras's own.

    Raises: InputError if it is not JSON.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("the architecture cannot be read as JSON; is it a Keras model?") from None
    found = dict.fromkeys(_found(config))
    return sorted(found, key=lambda finding: not finding.is_suspicious)[:100]


def _found(config: Any) -> Iterator[Finding]:
    # Each with the layer in which it lies.
    waiting: list[tuple[Any, str]] = [(config, "the model")]
    while waiting:
        node, where = waiting.pop()
        if isinstance(node, list):
            waiting += [(each, where) for each in reversed(node)]
        if not isinstance(node, dict):
            continue
        for layer in _layers_in(node):
            yield from _of_layer(layer)
        if _is_layer(node):
            where = _name(node)
        yield from _of_function(node, where)
        waiting += [(value, where) for key, value in node.items() if not (key == "function" and where == _name(node))]


def _layers_in(node: dict) -> list[dict]:
    """The layers that stand directly in a model's configuration, or in that of a layer around another."""
    listed = node.get("layers") if isinstance(node.get("layers"), list) else []
    if node.get("class_name") == "Sequential" and isinstance(node.get("config"), list):
        listed = node["config"]
    listed = [*(listed or []), node.get("layer")]
    return [layer for layer in listed if _is_layer(layer)]


def _is_layer(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_name"), str) and isinstance(node.get("config"), dict)


def _of_layer(layer: dict) -> Iterator[Finding]:
    try:
        kind = class_of(layer)
    except (InputError, KeyError, TypeError):
        return
    last = kind.rpartition(">")[2].rpartition(".")[2]
    name = _name(layer)
    if last in _RUNS:
        told = f"{name}: a {last} layer, which runs code{_length(layer)}; nothing in a file is run here"
        yield Finding("code", name, told, is_suspicious=True)
    elif kind in kinds.KINDS or kind in MODELS or last == PRUNING_WRAPPER:
        return
    elif kind in _OTHERS:
        yield Finding("unsupported-layer", name, f"{name}: a {kind} of Keras, which cannot be read here")
    else:
        told = f"{name}: a {printable(kind, 80)}, no layer of Keras; its code is not in the file"
        yield Finding("custom-layer", name, told)


def _length(layer: dict) -> str:
    """How long the code of a Lambda layer is, if it lies in the file."""
    function = layer["config"].get("function")
    code = function[0] if isinstance(function, list) and function else None
    if isinstance(function, dict) and isinstance(inner := function.get("config"), dict):
        code = inner.get("code")
    # Base64 has four letters for three bytes.
    return f" ({len(code) * 3 // 4:,} bytes of it lie in the file)" if isinstance(code, str) else ""


def _of_function(node: dict, where: str) -> Iterator[Finding]:
    kind, module = node.get("class_name"), node.get("module")
    if kind == "__lambda__":
        told = f"{where}: the code of a function lies in the file; nothing in a file is run here"
        yield Finding("code", where, told, is_suspicious=True)
    elif kind == "function" and isinstance(node.get("config"), str):
        name = printable(node["config"], 60)
        if isinstance(module, str) and module.split(".")[0] not in (*KERAS, *_OWN):
            told = f"{where}: names the function {name} of the module {printable(module, 60)}, which loading may import"
            yield Finding("code", where, told, is_suspicious=True)
        elif module in _OWN or node.get("registered_name") not in (None, node["config"]):
            yield Finding(
                "custom-function", where, f"{where}: names the function {name}, whose code is not in the file"
            )


def _name(node: Any) -> str:
    config = node.get("config") if isinstance(node, dict) else None
    name = config.get("name") if isinstance(config, dict) else None
    name = node.get("name", "") if name is None and isinstance(node, dict) else name
    return printable(name, 80) if isinstance(name, str) and name else "a layer"
