"""Keras files in and out. Only arrays are taken from them; nothing in them is executed and no link is followed."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from jaxdefend import InputError
from jaxdefend.nets import hdf5, kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.goodnet import RULES, Rule
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.hdf5 import decoded
from jaxdefend.nets.keras_architecture import Architecture
from jaxdefend.nets.keras_config import TEXT_LIMIT, read_config, scale_of_statistics, write_config
from jaxdefend.nets.keras_layers import shown
from jaxdefend.nets.keras_weights import CONTAINERS, read_weights
from jaxdefend.nets.keras_weights_alone import deepid_weights, has_rescaling
from jaxdefend.nets.net import Net, Source
from jaxdefend.nets.scales import check_scale
from jaxdefend.results.records import replacing
from jaxdefend.results.text import printable, shortened

SCALE_ATTRIBUTE, RULE_ATTRIBUTE = "jaxdefend_input_scale", "jaxdefend_rule"
_MESSAGE_LIMIT = 500

# VGG16 with what its optimizer keeps takes 1.6 GB, without it 550 MB.
_FILE_LIMIT = 2 * 2**30
MEMBER_LIMIT = 640 * 2**20


@dataclass(frozen=True)
class ModelFile:
    """A net and where it comes from; `notes` say what had to be guessed, one line each."""

    net: Net
    name: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_model(path: Path | str, architecture: Path | str | None = None) -> ModelFile:
    """The net in a Keras file, its arrays as float32.

    The content says which of these it is: Keras 2 weights (`layer_names`), Keras 2 model (`model_weights`), Keras 3
    weights (`layers/…/vars`), Keras 3 `.keras` archive.

    Args:
        architecture: for a file of weights alone: the JSON of `model.to_json()`, or a file of a whole model of the same
            graph. Without it, weights are those of DeepID: layers go by their names; where these differ, by order and
            shapes, and a note says so.
    Raises: InputError if it is none of these, holds two nets, or anything but finite float arrays.
    """
    path = Path(path)
    separate = None if architecture is None else read_architecture(architecture)
    with reading(path, "a Keras model"), _opened(path) as (file, config, version):
        scale, rule = _input_scale(file), _rule(file)
        own = None if config is None else read_config(config, version)
        if own is not None and separate is not None and own.graph != separate.graph:
            raise InputError("is a whole model, of another architecture than the one given; leave out the latter")
        used = own or separate
        if used is None:
            weights, notes = deepid_weights(file)
            graph, rescaled = deepid(weights[deepid().output]["bias"].shape[0]), has_rescaling(file)
            if rescaled:
                notes.append(
                    "a Rescaling stands in front of the net; assuming that it divides by 255 (input scale unit)"
                )
            used = Architecture(graph, (), input_scale="unit" if rescaled else None)
        else:
            weights, notes = read_weights(file, used, own is not None)
        net = Net(used.graph, weights, scale or used.input_scale or _scale_of_arrays(used.graph, weights))
        sha256 = digest(path)
    lines = tuple(as_line(f"{path}: {note}") for note in (*used.notes, *notes))
    object.__setattr__(net, "source", Source(path.name, sha256, rule))
    return ModelFile(net, path.name, sha256, lines)


def read_architecture(path: Path | str) -> Architecture:
    """The architecture in the JSON of `model.to_json()`, or in a file of a whole model.

    Raises: InputError if there is none.
    """
    path = Path(path)
    with reading(path, "an architecture"):
        check_file(path)
        if not h5py.is_hdf5(path) and not zipfile.is_zipfile(path):
            if path.stat().st_size > TEXT_LIMIT:
                size = path.stat().st_size
                raise InputError(f"has {size:,} bytes, expected the JSON of model.to_json(), or a whole model")
            return read_config(path.read_bytes())
        with _opened(path) as (_, config, version):
            if config is None:
                raise InputError("holds weights alone, expected the JSON of model.to_json(), or a whole model")
            return read_config(config, version)


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """One line for whatever is wrong with a file."""
    where = shortened(str(path), 200)
    try:
        yield
    except InputError as error:
        raise InputError(as_line(f"{where}: {error}")) from error
    except FileNotFoundError as error:
        raise InputError(as_line(f"{where}: no such file")) from error
    except PermissionError as error:
        raise InputError(as_line(f"{where}: may not be read; change its permissions")) from error
    except Exception as error:
        # h5py, zipfile and the decompressors answer damaged files with errors of a dozen kinds.
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(
            as_line(f"{where}: cannot be read as {expected} ({shortened(why, 200)}); is it complete?")
        ) from error


def check_file(path: Path) -> None:
    """Raises: InputError unless it is a file of a size that a net may have."""
    if path.exists() and not path.is_file():
        raise InputError(f"is a {'folder' if path.is_dir() else 'device or pipe'}, expected a Keras model file")
    size = path.stat().st_size
    if size == 0:
        raise InputError("the file is empty, expected a Keras model")
    if size > _FILE_LIMIT:
        raise InputError(f"has {size:,} bytes, expected at most {_FILE_LIMIT:,}")


def digest(path: Path) -> str:
    """SHA-256 of the file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Out -------------------------------------------------------------------------------------------------------------


def write_model(net: Net, path: Path | str, *, rule: Rule | None = None) -> None:
    """The net as a Keras 2 model file, architecture and weights; Keras 3 loads it too. Equal nets give equal bytes.

    Args:
        rule: how a GoodNet with this repaired net answers; noted in the file.
    Raises: InputError for a name that ends in `.keras`, by which Keras knows its other format.
    """
    if str(path).endswith(".keras"):
        raise InputError(f"{path}: a .keras file has another format than what is written here; end its name in .h5")
    with _new_file(path) as file:
        if rule is not None:
            file.attrs[RULE_ATTRIBUTE] = rule
        file.attrs["model_config"] = json.dumps(config_of_net(net))
        _write_layers(net, file, file.create_group("model_weights"))


def write_weights(net: Net, path: Path | str) -> None:
    """The net's arrays as a Keras 2 weights-only file.

    Raises: InputError for a name that ends in `.weights.h5`, by which Keras 3 knows its own, other format.
    """
    if str(path).endswith(".weights.h5"):
        raise InputError(f"{path}: Keras 3 takes this name for its own format; use another, such as net_weights.h5")
    with _new_file(path) as file:
        _write_layers(net, file, file)


def config_of_net(net: Net) -> dict:
    """The architecture as Keras 2 writes it."""
    given = {
        layer.name: {name: np.asarray(array) for name, array in net.weights[layer.name].items()}
        for layer in net.graph.layers
        if isinstance(layer.settings, kinds.Normalization)
    }
    return write_config(net.graph, given, "deepid" if net.graph == deepid(net.classes) else "net")


@contextmanager
def _new_file(path: Path | str) -> Iterator[h5py.File]:
    """Made in memory and put in place when it is whole: h5py answers a full disk with errors of many kinds."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _write_layers(net: Net, file: h5py.File, group: h5py.Group) -> None:
    if net.input_scale:
        file.attrs[SCALE_ATTRIBUTE] = net.input_scale
    for place in (file, group):
        place.attrs["backend"], place.attrs["keras_version"] = np.bytes_("tensorflow"), np.bytes_("2.7.0")
    names = [layer.name for layer in net.graph.layers]
    if len(names) <= 16:
        # As earlier versions wrote DeepID: equal nets give equal bytes.
        group.attrs["layer_names"] = [name.encode() for name in names]
    else:
        _write_names(group, "layer_names", names)
    for layer in net.graph.layers:
        shapes = net.graph.weight_shapes.get(layer.name, {})
        # The numbers of a Normalization are part of the architecture.
        names = [] if isinstance(layer.settings, kinds.Normalization) else list(shapes)
        arrays = {f"{layer.name}/{name}:0": np.asarray(net.weights[layer.name][name]) for name in names}
        place = group.create_group(layer.name)
        _write_names(place, "weight_names", list(arrays))
        for weight, array in arrays.items():
            place.create_dataset(weight, data=array, track_times=False)


def _write_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """As Keras does: an attribute takes 64 KB at most, and several take what is more."""
    array = np.array([name.encode() for name in names], "S")
    if array.nbytes < 64_000:
        group.attrs[attribute] = array
        return
    for number, part in enumerate(np.array_split(array, -(-array.nbytes // 60_000))):
        group.attrs[f"{attribute}{number}"] = part


# --- In --------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, str | bytes | None, str | None]]:
    """The HDF5 file with the weights, the architecture if there is one, and the version of Keras if it is told."""
    check_file(path)
    is_archive = zipfile.is_zipfile(path)
    if h5py.is_hdf5(path):
        if is_archive:
            raise InputError("is an HDF5 file and a .keras archive at once, which hold a net each; expected one")
        with h5py.File(path, "r") as file:
            _check_one_set(file)
            config, version = hdf5.text(file, "model_config", TEXT_LIMIT), hdf5.text(file, "keras_version", 100)
            yield file, config, decoded(version)
    elif is_archive:
        check_directory(path)
        with zipfile.ZipFile(path) as archive:
            config = member_of(archive, "config.json", TEXT_LIMIT)
            version = _version(archive)
            weights = member_of(archive, "model.weights.h5", MEMBER_LIMIT)
        with h5py.File(io.BytesIO(weights), "r") as file:
            _check_one_set(file)
            if "layer_names" in file.attrs or hdf5.has(file, "model_weights"):
                raise InputError("model.weights.h5 holds weights as Keras 2 keeps them, expected those of an archive")
            yield file, config, version
    else:
        raise InputError(what_else(path))


def what_else(path: Path) -> str:
    """What a file is that is neither an HDF5 file nor an archive."""
    with path.open("rb") as file:
        head = file.read(200)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "damaged or truncated HDF5 file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; fetch it with git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not a Keras model; was the download complete?"
    if head.lstrip().startswith(b"{"):
        return "JSON, which holds no arrays; give it as the architecture of a file of weights"
    return "neither an HDF5 file nor a .keras archive; is it complete?"


def _check_one_set(file: h5py.File) -> None:
    """Keras and TensorFlow look for weights in several places of one file: they must all be the same net."""
    places = [
        name
        for name, is_there in (
            ("layer_names", "layer_names" in file.attrs or "layer_names0" in file.attrs),
            ("model_weights", hdf5.has(file, "model_weights")),
            *((name, hdf5.has(file, name)) for name in CONTAINERS),
        )
        if is_there
    ]
    if len(places) > 1:
        raise InputError(f"holds two sets of weights ({' and '.join(places[:2])}), expected one; save the model anew")


def check_directory(path: Path) -> None:
    """Refuses an archive whose table of contents alone is large; zipfile would read it whole."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - 66_000))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if end < 0 or length > 2**20 or b"PK\x06\x07" in tail[max(0, end - 20) : end]:
        raise InputError("its table of contents is larger than that of any .keras archive; is it damaged?")


def member_of(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """The one member of this name, unpacked. Raises: InputError if there is none, or more than `limit` bytes of it."""
    entries = [entry for entry in archive.infolist() if entry.filename == name]
    if len(entries) != 1:
        raise InputError(f"{len(entries)} members {name}, expected one in a .keras archive")
    (entry,) = entries
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The others unpack a block whole, whatever it unpacks to.
        packing = {12: "bzip2", 14: "lzma"}.get(entry.compress_type, f"method {entry.compress_type}")
        raise InputError(f"{name} is packed with {packing}, expected deflate or none, as Keras does")
    if entry.file_size > limit:
        raise InputError(f"{name} unpacks to {entry.file_size:,} bytes, expected at most {limit:,}")
    with archive.open(entry) as member:
        # The size above is only what the archive claims.
        content = member.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{name} unpacks to more than {limit:,} bytes")
    return content


def _version(archive: zipfile.ZipFile) -> str | None:
    if "metadata.json" not in archive.namelist():
        return None
    told = json.loads(member_of(archive, "metadata.json", 2**16))
    version = told.get("keras_version") if isinstance(told, dict) else None
    return version if isinstance(version, str) else None


def _input_scale(file: h5py.File) -> str | None:
    if SCALE_ATTRIBUTE not in file.attrs:
        return None
    return check_scale(decoded(hdf5.text(file, SCALE_ATTRIBUTE, 2**16)) or "")


def _rule(file: h5py.File) -> Rule | None:
    told = decoded(hdf5.text(file, RULE_ATTRIBUTE, 2**16))
    if told is None:
        return None
    for rule in RULES:
        if told == rule:
            return rule
    raise InputError(f"attribute {RULE_ATTRIBUTE} is {shown(told)}, expected {' or '.join(RULES)}")


def _scale_of_arrays(graph: Graph, weights: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
    """What a Normalization at the front says about the input scale."""
    for layer in graph.layers[1:]:
        if isinstance(layer.settings, kinds.Normalization):
            return scale_of_statistics(weights[layer.name])
        if not isinstance(layer.settings, kinds.Idle | kinds.ZeroPadding2D):
            break
    return None


def as_line(text: str) -> str:
    """One line that is safe to print."""
    return printable(text, _MESSAGE_LIMIT)
