"""The architecture in a Keras file, as JSON, to and from a graph. Read as data: nothing in it is imported or run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.keras_architecture import Architecture, Entry
from jaxdefend.nets.keras_building import Building
from jaxdefend.nets.keras_layers import config_of, shown
from jaxdefend.nets.keras_reading import model_of

# NASNetLarge, with a thousand layers, takes 1.2 MB. More is not read: a list of lists takes thirty times its text.
TEXT_LIMIT = 8 * 2**20


def read_config(text: str | bytes, version: str | None = None) -> Architecture:
    """The architecture in the JSON of a Keras model.

    Args:
        version: of the Keras that wrote it, where the file says so.
    Raises: InputError naming the first layer that is not of a known kind, or not as Keras writes it.
    """
    if len(text) > TEXT_LIMIT:
        raise InputError(f"the architecture has {len(text):,} bytes, expected at most {TEXT_LIMIT:,}")
    try:
        config = json.loads(text, object_hook=_plain)
        if not isinstance(config, dict):
            raise InputError(f"the architecture is {shown(config)}, expected an object with class_name and config")
        told = version or config.get("keras_version")
        major = int(told.split(".")[0]) if isinstance(told, str) and told[:1].isdigit() else 2
        building = Building(3 if major >= 3 else 2)
        (output,), entries = model_of(building, config, None, 0)
        graph = building.graph(output)
        entries = tuple(_renamed(entry, building.new_names) for entry in entries)
        return Architecture(graph, entries, building.given, _told_scale(graph, building.given), tuple(building.notes))
    except InputError:
        raise
    except RecursionError:
        raise InputError("the architecture is nested too deeply; is it a Keras model?") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        why = f"{type(error).__name__}: {shown(str(error)[:300])}"
        raise InputError(f"the architecture cannot be read ({why})") from None


def _plain(node: dict) -> Any:
    """Some versions write a tuple as {"class_name": "__tuple__", "items": […]}."""
    return node["items"] if node.keys() == {"class_name", "items"} else node


def _renamed(entry: Entry, names: Mapping[str, str]) -> Entry:
    if entry.inside is not None:
        return replace(entry, inside=tuple(_renamed(each, names) for each in entry.inside))
    return entry if entry.layer is None else replace(entry, layer=names.get(entry.layer, entry.layer))


def _told_scale(graph: Graph, given: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
    """What a Rescaling, or a Normalization whose numbers are known, at the front says about the input scale."""
    for layer in graph.layers[1:]:
        if isinstance(layer.settings, kinds.Idle | kinds.ZeroPadding2D | kinds.Permute):
            continue
        if isinstance(layer.settings, kinds.Rescaling):
            return scale_of_width(255 * max(map(abs, layer.settings.scale)))
        if layer.name in given:
            return scale_of_statistics(given[layer.name])
        break
    return None


def scale_of_width(width: float) -> str | None:
    """The scale at which a factor makes 0…255 as wide as `width`: training wants a few units of width."""
    if 0.5 <= width <= 16:
        return "raw"
    return "unit" if 0.5 <= width / 255 <= 16 else None


def scale_of_statistics(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The scale of images that have these means and variances."""
    return scale_of_width(255 / max(float(np.sqrt(np.abs(arrays["variance"]).max())), 1e-6))


def write_config(graph: Graph, given: Mapping[str, Mapping[str, np.ndarray]] | None = None, name: str = "net") -> dict:
    """The architecture as Keras 2 writes it into a model file; Keras 3 reads it too.

    Args:
        given: means and variances of Normalization layers, which are part of the architecture.
    """
    layers = []
    for layer in graph.layers:
        settings = config_of(layer.settings)
        if isinstance(layer.settings, kinds.InputLayer):
            config = {**settings, "dtype": "float32", "sparse": False, "ragged": False, "name": layer.name}
        else:
            config = {"name": layer.name, "trainable": True, "dtype": "float32", **settings}
        for key, array in (given or {}).get(layer.name, {}).items():
            values = np.asarray(array).tolist()
            config[key] = values if config["axis"] else values[0]
        reads = [[[each, 0, 0, {}] for each in layer.inputs]] if layer.inputs else []
        layers.append({"class_name": layer.kind, "config": config, "name": layer.name, "inbound_nodes": reads})
    config = {
        "name": name,
        "layers": layers,
        "input_layers": [[graph.input, 0, 0]],
        "output_layers": [[graph.output, 0, 0]],
    }
    return {"class_name": "Functional", "config": config}
