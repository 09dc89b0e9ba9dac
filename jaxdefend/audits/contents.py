"""What an HDF5 file of a net holds beside the net's arrays. No link is followed and no array is read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import h5py.h5o

from jaxdefend import InputError
from jaxdefend.audits.findings import Finding
from jaxdefend.nets import hdf5
from jaxdefend.nets.keras_files import RULE_ATTRIBUTE, SCALE_ATTRIBUTE
from jaxdefend.nets.keras_weights import CONTAINERS, kept_layers
from jaxdefend.results.text import counted, printable, shortened

# NASNetLarge, with its optimizer's state, has about 9,000; 20,000 take up to nine seconds.
_OBJECTS_LIMIT = 20_000

_ATTRIBUTES = re.compile(r"(layer_names|weight_names)\d*|backend|keras_version")
_AT_THE_ROOT = ("model_config", "training_config", SCALE_ATTRIBUTE, RULE_ATTRIBUTE)
_OPTIMIZER = ("optimizer_weights", "optimizer")


@dataclass
class _Seen:
    """What lies in a file, by path, with sizes in bytes."""

    arrays: dict[str, int] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    attributes: dict[str, int] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    external_links: list[str] = field(default_factory=list)
    external_arrays: list[str] = field(default_factory=list)


def contents_findings(file: h5py.File) -> Iterator[Finding]:
    """What no layer of the net reads, one finding per kind.

    Raises: InputError if there are more objects than in the file of any net.
    """
    seen = _seen(file)
    if "training_config" in file.attrs:
        told = "the attribute training_config says how the net was compiled (loss, optimizer); it is not read"
        yield Finding("training-configuration", "training_config", told)
    optimizer = {path: length for path, length in seen.arrays.items() if _parts(path)[0] in _OPTIMIZER}
    if optimizer:
        group = _parts(next(iter(optimizer)))[0]
        told = f"{group}: {counted(len(optimizer), 'array')} of {size(sum(optimizer.values()))}, the optimizer's state"
        yield Finding("optimizer-state", group, f"{told}, on which no answer depends")
    try:
        read, groups = _expected(file, seen)
    except InputError as error:
        yield Finding("unreadable-index", "layer_names", f"which arrays are the net's cannot be told: {error}")
    else:
        unknown = {path: length for path, length in seen.arrays.items() if path not in read and path not in optimizer}
        yield from _unknown("unknown-array", "array", unknown)
        others = dict.fromkeys((path for path in seen.groups if path not in groups), 0)
        yield from _unknown("unknown-group", "group", others)
    yield from _unknown("unknown-attribute", "attribute", seen.attributes)
    yield from _leading(
        "link", seen.links, "leads to another place in the file and is not followed", is_suspicious=False
    )
    yield from _leading("external-link", seen.external_links, "leads to another file and is not followed")
    yield from _leading("external-array", seen.external_arrays, "keeps its values in another file, which is not opened")


def _seen(file: h5py.File) -> _Seen:
    seen, met = _Seen(), {_address(file)}
    waiting: list[tuple[str, Any]] = [("", file)]
    while waiting:
        path, place = waiting.pop()
        for name, length in _attributes(place, path):
            seen.attributes[name] = length
        if not isinstance(place, h5py.Group):
            continue
        for name in sorted(hdf5.names(place)):
            below = f"{path}/{name}" if path else name
            link = place.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                seen.external_links.append(below)
            elif not isinstance(link, h5py.HardLink):
                seen.links.append(below)
            else:
                _add(seen, met, waiting, below, place[name])
    return seen


def _add(seen: _Seen, met: set[Any], waiting: list[tuple[str, Any]], path: str, found: Any) -> None:
    if isinstance(found, h5py.Dataset):
        if found.is_virtual or found.external:
            # To ask for its shape would open the other files.
            seen.arrays[path] = 0
            seen.external_arrays.append(path)
        else:
            seen.arrays[path] = found.id.get_storage_size()
    else:
        seen.groups.append(path)
    if len(seen.arrays) + len(seen.groups) > _OBJECTS_LIMIT:
        raise InputError(f"holds more than {_OBJECTS_LIMIT:,} groups and arrays, expected those of a net")
    # A group may lie in itself.
    if (address := _address(found)) not in met:
        met.add(address)
        waiting.append((path, found))


def _address(place: Any) -> Any:
    return h5py.h5o.get_info(place.id).addr


def _attributes(place: Any, path: str) -> Iterator[tuple[str, int]]:
    is_array = isinstance(place, h5py.Dataset)
    parts = _parts(path)
    if parts[0] in _OPTIMIZER:
        return
    if len(place.attrs) > hdf5.NAMES_LIMIT:
        raise InputError(f"{printable(path, 100) or '/'} has {len(place.attrs):,} attributes, expected those of a net")
    for name in place.attrs:
        is_known = (
            (_ATTRIBUTES.fullmatch(name) and not is_array)
            or (not path and name in _AT_THE_ROOT)
            or (name == "name" and parts[-1] == "vars")
        )
        if not is_known:
            yield f"{path}@{name}" if path else f"@{name}", place.attrs.get_id(name).get_storage_size()


def _expected(file: h5py.File, seen: _Seen) -> tuple[set[str], set[str]]:
    """The paths of the arrays that are read, and of the groups that a net's file has."""
    is_whole = hdf5.has(file, "model_weights")
    if not is_whole and "layer_names" not in file.attrs and "layer_names0" not in file.attrs:
        return _expected_of_keras_3(seen)
    group, prefix = (hdf5.group_at(file, "model_weights"), "model_weights/") if is_whole else (file, "")
    arrays = {f"{prefix}{layer}/{weight}" for layer, weights in kept_layers(group) for weight in weights}
    layers = [f"{prefix}{layer}" for layer in (*hdf5.strings(group, "layer_names"), "top_level_model_weights")]
    groups = {"model_weights", *layers, *(above for path in (*arrays, *layers) for above in _above(path))}
    return arrays, groups | {path for path in seen.groups if _parts(path)[0] in _OPTIMIZER}


def _expected_of_keras_3(seen: _Seen) -> tuple[set[str], set[str]]:
    def is_known(path: str) -> bool:
        parts = _parts(path)
        return parts[0] in (*CONTAINERS, *_OPTIMIZER) or parts == ["vars"]

    # What lies in layers and belongs to none is refused by the reader.
    arrays = {path for path in seen.arrays if is_known(path) and _parts(path)[-2:-1] == ["vars"]}
    return arrays, {path for path in seen.groups if is_known(path)}


def _parts(path: str) -> list[str]:
    # Some versions write Windows's separator.
    return path.replace("\\", "/").split("/")


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


def _unknown(kind: str, noun: str, found: dict[str, int]) -> Iterator[Finding]:
    if found:
        told = f"{counted(len(found), noun)} that no layer of the net reads"
        total = sum(found.values())
        told += f", {size(total)}" if total else ""
        yield Finding(kind, printable(next(iter(found)), 100), f"{told}: {_some(list(found))}")


def _leading(kind: str, found: list[str], told: str, is_suspicious: bool = True) -> Iterator[Finding]:
    if found:
        more = f"; {len(found) - 1:,} more do so" if len(found) > 1 else ""
        where = printable(found[0], 100)
        yield Finding(kind, where, f"{where} {told}{more}", is_suspicious)


def _some(paths: list[str]) -> str:
    shown = ", ".join(shortened(printable(path), 60) for path in paths[:4])
    return f"{shown} and {len(paths) - 4:,} more" if len(paths) > 4 else shown


def size(length: int) -> str:
    """A number of bytes, for a message."""
    return f"{length:,} byte{'' if length == 1 else 's'}"
