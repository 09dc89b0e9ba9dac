"""What a model file holds beside the arrays that are read: code, links, state of the training, bytes of no format.

Nothing in a file is run and no link is followed. What `load_net` refuses stays refused; here it is named, if that is
safe, so that an audit can say why it ends.
"""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py

from jaxdefend import InputError
from jaxdefend.audits.architecture import architecture_findings
from jaxdefend.audits.contents import contents_findings, size
from jaxdefend.audits.findings import Finding
from jaxdefend.nets import hdf5
from jaxdefend.nets.keras_config import TEXT_LIMIT
from jaxdefend.nets.keras_files import MEMBER_LIMIT, check_directory, check_file, digest, member_of, reading, what_else
from jaxdefend.results.text import printable

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MEMBERS_LIMIT = 10_000
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class FileFacts:
    """A model file as it lies on the disk.

    Attributes:
        name: without its folder.
        format: "Keras 2 model", "Keras 2 weights", "Keras 3 weights", "Keras 3 archive", "HDF5 file", "pickle", or
            "archive with a pickle".
        bytes: its size.
        sha256: of its content, in hexadecimal digits.
        findings: what is in it beside the arrays of a net.
    """

    name: str
    format: str
    bytes: int
    sha256: str
    findings: tuple[Finding, ...] = ()

    @property
    def code(self) -> tuple[Finding, ...]:
        """The findings that are code, which loading the file in Keras or with pickle may run."""
        return tuple(finding for finding in self.findings if finding.kind in ("code", "pickle"))

    def record(self) -> dict[str, Any]:
        """What audit.json holds of it."""
        return asdict(self)


def file_findings(path: Path | str) -> FileFacts:
    """The file's format, its hash, and what is in it that no net needs.

    Suspicious are "code" (a Lambda layer, a function of a foreign module), "pickle", "external-link", "external-array"
    (values that lie in another file) and "two-formats". Something to know are "custom-layer", "custom-function",
    "unsupported-layer", "optimizer-state", "training-configuration", "unknown-attribute", "unknown-array",
    "unknown-group", "link", "extra-member", "foreign-bytes" and "unreadable-index".

    Raises: InputError if there is no such file, or it is too large, damaged, or of none of these formats.
    """
    path = Path(path)
    with reading(path, "a Keras model"):
        check_file(path)
        kind, findings = _looked_at(path)
        return FileFacts(path.name, kind, path.stat().st_size, digest(path), tuple(findings))


def _looked_at(path: Path) -> tuple[str, list[Finding]]:
    is_hdf5, is_archive = h5py.is_hdf5(path), zipfile.is_zipfile(path)
    if is_hdf5:
        findings = [_two_formats()] if is_archive else []
        with h5py.File(path, "r", locking=False) as file:
            findings += _in_front(file.userblock_size)
            findings += _behind(path) if not is_archive else []
            kind = _format(file)
            return kind, findings + list(_of_hdf5(file))
    if is_archive:
        check_directory(path)
        with zipfile.ZipFile(path) as archive:
            return _of_archive(archive)
    with path.open("rb") as file:
        head = file.read(2)
    if len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "pickle", [_pickle("the file")]
    raise InputError(what_else(path))


# --- HDF5 ------------------------------------------------------------------------------------------------------------


def _format(file: h5py.File) -> str:
    if hdf5.has(file, "model_weights"):
        return "Keras 2 model"
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return "Keras 2 weights"
    names = hdf5.names(file)
    is_keras_3 = any(name.split("\\")[0] in ("layers", "_layer_checkpoint_dependencies") for name in names)
    return "Keras 3 weights" if is_keras_3 else "HDF5 file"


def _of_hdf5(file: h5py.File) -> Iterator[Finding]:
    if config := hdf5.text(file, "model_config", TEXT_LIMIT):
        yield from architecture_findings(config)
    yield from contents_findings(file)


def _in_front(length: int) -> list[Finding]:
    if not length:
        return []
    told = f"{size(length)} stand in front of the net, where another program may read them"
    return [Finding("foreign-bytes", "in front", told)]


def _behind(path: Path) -> list[Finding]:
    """Bytes behind the end of the file that its own header names: HDF5 File Format Specification 3.0, section II.A."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(_SIGNATURE):
        return []
    # Versions 0 and 1 have addresses of the size in byte 13, versions 2 and 3 of that in byte 9.
    version = head[8]
    width, end = (head[13], 24 + 4 * (version == 1)) if version < 2 else (head[9], 12)
    # The base address, another one, and the end.
    told = int.from_bytes(head[end + 2 * width : end + 3 * width], "little")
    length = path.stat().st_size - told
    if width != 8 or length <= 0:
        return []
    return [Finding("foreign-bytes", "at the end", f"{size(length)} follow behind the end of the HDF5 content")]


# --- Archives --------------------------------------------------------------------------------------------------------


def _of_archive(archive: zipfile.ZipFile) -> tuple[str, list[Finding]]:
    members = archive.infolist()
    if len(members) > _MEMBERS_LIMIT:
        raise InputError(f"{len(members):,} members, expected at most {_MEMBERS_LIMIT:,} in a .keras archive")
    pickles = [entry.filename for entry in members if _is_pickle(archive, entry)]
    findings = [_pickle(printable(name, 100)) for name in pickles[:10]]
    names = {entry.filename for entry in members}
    if pickles and CONFIG not in names:
        return "archive with a pickle", findings
    config, weights = member_of(archive, CONFIG, TEXT_LIMIT), member_of(archive, WEIGHTS, MEMBER_LIMIT)
    extra = [
        entry for entry in members if entry.filename not in (CONFIG, METADATA, WEIGHTS, *pickles) and not entry.is_dir()
    ]
    if extra:
        shown = ", ".join(printable(entry.filename, 60) for entry in extra[:5])
        more = f" and {len(extra) - 5:,} more" if len(extra) > 5 else ""
        unpacked = size(sum(entry.file_size for entry in extra))
        told = f"{len(extra):,} members beside the net, of {unpacked} as they claim: {shown}{more}"
        findings.append(Finding("extra-member", printable(extra[0].filename, 100), told))
    findings += _in_front(min(entry.header_offset for entry in members))
    if archive.comment:
        findings.append(
            Finding("foreign-bytes", "comment", f"the archive has a comment of {size(len(archive.comment))}")
        )
    findings += architecture_findings(config)
    with h5py.File(io.BytesIO(weights), "r") as file:
        findings += _in_front(file.userblock_size)
        findings += contents_findings(file)
    return "Keras 3 archive", findings


def _is_pickle(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    if entry.filename.lower().endswith((".pkl", ".pickle")):
        return True
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        return False
    try:
        with archive.open(entry) as member:
            head = member.read(2)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):
        return False
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _pickle(where: str) -> Finding:
    told = f"{where} is a pickle: whoever loads it runs the code in it; it is not read here"
    return Finding("pickle", where, told, is_suspicious=True)


def _two_formats() -> Finding:
    told = "an HDF5 file and an archive at once, which may hold two nets: programs differ in which of them they read"
    return Finding("two-formats", "the file", told, is_suspicious=True)
