"""Small data files of every format, and hostile ones; all made from seeds."""

import gzip
import os
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

SHAPE = (55, 47, 3)


def write_hdf5(path: Path, **arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def write_idx(path: Path, values: np.ndarray) -> Path:
    """An IDX file of unsigned bytes, packed if it is called .gz."""
    content = (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def fill(folder: Path, faces: np.ndarray, *names: str) -> Path:
    """Pictures of these names, the first holds faces[0] and so on."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces[index % len(faces)]).save(path)
    return folder


def shrunk(pixels: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Resized by Pillow."""
    small = [Image.fromarray(image).resize(shape[1::-1], Image.Resampling.BILINEAR) for image in pixels]
    return np.stack([np.asarray(image) for image in small])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", colour: int = 2) -> bytes:
    """A PNG whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def zeros(megabytes: int) -> bytes:
    """So many megabytes of zeros, packed by zlib about 1,000 to 1: one packed megabyte, over and over."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = (megabytes * 2**20 % 65521) << 16 | 1
    return b"\x78\xda" + one * megabytes + b"\3\0" + struct.pack(">I", adler)


def write_chunk(path: Path, content: bytes, shape=(1, 3, 55, 47), n=1, times=1, **options) -> Path:
    """An official file whose only chunk of images is `content`, packed `times` times by what it says."""
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(shape)
        for _ in range(times):
            properties.set_deflate(9)
        space = h5py.h5s.create_simple((n, *shape[1:]))
        data = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, properties)
        data.write_direct_chunk((0,) * len(shape), content)
        file["label"] = np.zeros(n)
    return path


def packed_thrice(path: Path) -> Path:
    return write_chunk(path, zlib.compress(zlib.compress(zeros(1000), 9), 9), times=3)


def packed_labels(path: Path) -> Path:
    """A chunk of labels that unpacks to a gigabyte."""
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((8, 3, 55, 47), np.uint8)
        label = file.create_dataset("label", (8,), "int64", maxshape=(None,), chunks=(2**18,), compression="gzip")
        label.id.write_direct_chunk((0,), zeros(1000))
    return path


def lzf_bomb(path: Path) -> Path:
    """A chunk of 64 MB in LZF that unpacks to 5.6 GB."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (8192, 3, 55, 47), np.uint8, chunks=(8192, 3, 55, 47), compression="lzf")
        data.id.write_direct_chunk((0, 0, 0, 0), b"\0\0" + b"\xe0\xff\x00" * 2_000_000)
        file["label"] = np.zeros(8192)
    return path


def many_tiny(path: Path, n: int, side: int) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (n, 3, side, side), np.uint8, chunks=(10**6, 3, side, side), compression=9)
        label = file.create_dataset("label", (n,), np.uint8, chunks=(10**6,), compression=9)
        images, labels = zlib.compress(bytes(3 * side * side * 10**6), 9), zlib.compress(bytes(10**6), 9)
        for start in range(0, n, 10**6):
            data.id.write_direct_chunk((start, 0, 0, 0), images)
            label.id.write_direct_chunk((start,), labels)
    return path


def many_labels(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((8, 3, 55, 47), np.uint8)
        label = file.create_dataset("label", (10**8,), np.uint8, chunks=(10**6,), compression=9)
        labels = zlib.compress(bytes(10**6), 9)
        for start in range(0, 10**8, 10**6):
            label.id.write_direct_chunk((start,), labels)
    return path


def huge_rows(path: Path) -> Path:
    """One image of 1.5 GB."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (1, 3, 8000, 8000), "float64", chunks=(1, 3, 1000, 1000), compression=9)
        chunk = zlib.compress(bytes(24 * 10**6), 9)
        for row in range(0, 8000, 1000):
            for column in range(0, 8000, 1000):
                data.id.write_direct_chunk((0, 0, row, column), chunk)
        file["label"] = [0]
    return path


def huge_chunk(path: Path) -> Path:
    """A chunk that says it holds 3 GB, and does."""
    return write_chunk(path, zeros(2959), shape=(400_000, 3, 55, 47), n=400_000)


def tall(path: Path) -> Path:
    path.write_bytes(png(1, 64_000_000, zeros(256)))
    return path


def npy_header(shape, descr="'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def long_npy_header(path: Path) -> Path:
    """A member whose header says it is a gigabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(b"\x93NUMPY\2\0" + struct.pack("<I", 2**30))
        member.write(b" " * 2**24)
    return path


def bz2_npz(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive, archive.open("x.npy", "w") as member:
        member.write(npy_header((16, 1024, 1024)) + bytes(2**24))
    return path


def labels_npz(path: Path) -> Path:
    """Labels of 300 MB that are packed into 300 KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_header((4, 8, 8)) + bytes(256))
        with archive.open("y.npy", "w") as member:
            member.write(npy_header((4, 75 * 2**20)))
            for _ in range(300):
                member.write(bytes(2**20))
    return path


def many_members(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{number}.npy", b"")
    return path


def deep_header(path: Path) -> Path:
    path.write_bytes(npy_header("(" * 4000 + ")" * 4000))
    return path


def short_idx(path: Path) -> Path:
    """A packed IDX file that says it holds 9 million images, and holds none."""
    path.write_bytes(gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 9_000_000, 28, 28)))
    return path


def sparse(path: Path, begin: bytes, size: int) -> Path:
    with open(path, "wb") as file:
        file.write(begin)
        file.truncate(size)
    return path


def sparse_table(folder: Path) -> Path:
    folder.mkdir()
    Image.new("RGB", (47, 55)).save(folder / "a.png")
    sparse(folder / "labels.csv", b"file,label\na.png,1\n", 2**30)
    return folder


def deep_folder(folder: Path, depth: int = 1500) -> Path:
    folder.mkdir()
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(depth):
            os.mkdir("0")
            os.chdir("0")
        Image.new("RGB", (47, 55)).save("a.png")
    finally:
        os.chdir(here)
    return folder


def remove_deep(folder: Path) -> None:
    """What shutil.rmtree cannot: it calls itself for each level."""
    names = [folder]
    while (names[-1] / "0").is_dir() and len(str(names[-1])) < 3000:
        names.append(names[-1] / "0")
    if len(str(names[-1])) >= 3000:
        os.rename(names[-1], folder.with_name("rest"))
        remove_deep(folder.with_name("rest"))
        names.pop()
    for name in reversed(names):
        (name / "a.png").unlink(missing_ok=True)
        name.rmdir()


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def many_keys(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for number in range(20_000):
            file.create_group(f"{number}")
    return path


def long_key(path: Path) -> Path:
    return write_hdf5(path, **{"k" * 60_000: np.zeros(3)})


def wide_type(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (4,), np.dtype([(f"field_{number}", "u1") for number in range(800)]))
        file["label"] = np.zeros(4)
    return path


# name: (how it is made from a path, what the error says)
HOSTILE = {
    "chunk.h5": (lambda path: write_chunk(path, zeros(1500), (400, 3, 55, 47), 400), "decompresses to more"),
    "small_chunk.h5": (lambda path: write_chunk(path, zeros(1500)), "is it damaged"),
    "thrice.h5": (packed_thrice, "more than once"),
    "labels.h5": (packed_labels, "decompresses to more"),
    "lzf.h5": (lzf_bomb, "chunks of"),
    "tiny.h5": (lambda path: many_tiny(path, 10**8, 1), "100,000,000 images"),
    "tiny_fewer.h5": (lambda path: many_tiny(path, 9 * 10**6, 1), "too small for 55×47"),
    "many_labels.h5": (many_labels, "(100000000,), expected (8,)"),
    "rows.h5": (huge_rows, "an image takes"),
    "huge_chunk.h5": (huge_chunk, "chunks of"),
    "keys.h5": (many_keys, "no `data`"),
    "key.h5": (long_key, "no `data`"),
    "type.h5": (wide_type, "of type"),
    "tall.png": (tall, "on a side"),
    "bomb.png": (lambda path: path.write_bytes(png(2**31 - 1, 2**31 - 1)), "bomb.png"),
    "header.npz": (long_npy_header, "header of"),
    "bz2.npz": (bz2_npz, "compressed in a way"),
    "labels.npz": (labels_npz, "to be read at once"),
    "members.npz": (many_members, "too many members"),
    "deep.npy": (deep_header, "header"),
    "sparse.npy": (lambda path: sparse(path, npy_header((9 * 10**6, 55, 47, 3)), 80 * 10**9), "never filled in"),
    "a-images-idx3-ubyte.gz": (short_idx, "ends too early"),
    "sparse_table": (sparse_table, "bytes, expected a table"),
    "deep": (deep_folder, "deep"),
    "pipe": (pipe, "neither a file"),
}
