"""Tables of labels as people and their programs write them, through open_images."""

import os
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers_data import fill as filled

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

FACES = helpers.random_pixels(8)


def fill(folder: Path, *names: str) -> Path:
    return filled(folder, FACES, *names)


def opened(folder: Path, **options):
    images = open_images([folder], **options)
    labels = None if images.labels is None else images.labels.tolist()
    return [os.path.relpath(name, folder) for name in images.names], labels, images


@pytest.mark.parametrize("header", ["", "file,label\r\n", "Filename,Class\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_labels_from_csv_in_its_order(tmp_path, header, mark):
    fill(tmp_path, "a.png", "b.png", "sub/c.png", "d.png")
    text = mark + header + 'sub/c.png,3\n"b.png", 0\n\n./a.png,12\n'
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    names, labels, images = opened(tmp_path)
    assert (names, labels) == (["sub/c.png", "b.png", "a.png"], [3, 0, 12])
    assert images.notes == (f"{tmp_path / 'labels.csv'} lists 3 of 4 images; the other 1 are left out",)
    np.testing.assert_array_equal(images[:], FACES[[2, 1, 0]])


FORMS = {
    "semicolons": b"file;label\r\nb.png;3\r\nsub/c.png;12\r\n",
    "tabs": b"file\tlabel\nb.png\t3\nsub/c.png\t12\n",
    "no header": b"b.png;3\nsub/c.png;12\n",
    "whole floats": b"file,label\nb.png,3.0\nsub/c.png,12.\n",
    "backslashes": b"file,label\nb.png,3\nsub\\c.png,12\n",
    "backslashes and dots": b"file,label\n.\\b.png,3\n.\\sub\\c.png,12\n",
    "UTF-16": "file\tlabel\nb.png\t3\nsub/c.png\t12\n".encode("utf-16"),
    "UTF-16, the other way round": "\ufefffile,label\nb.png,3\nsub/c.png,12\n".encode("utf-16-be"),
    "pandas": b",file,label\n0,b.png,3\n1,sub/c.png,12\n",
    "pandas, semicolons": b";file;label\n0;b.png;3\n1;sub/c.png;12\n",
    "pandas, named": b"index,file,label\n0,b.png,3.0\n1,sub/c.png,12.0\n",
    "pandas, no header": b"0,b.png,3\n1,sub/c.png,12\n",
    "old line ends": b"file,label\rb.png,3\rsub/c.png,12\r",
    "empty lines": b"\n\nfile;label\n\nb.png;3\n;\nsub/c.png;12\n",
    "quoted": b'"file";"label"\n"b.png";"3"\n"sub/c.png";"12"\n',
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS.keys())
def test_forms_of_tables(tmp_path, content):
    fill(tmp_path, "a.png", "b.png", "sub/c.png")
    (tmp_path / "labels.csv").write_bytes(content)
    names, labels, images = opened(tmp_path)
    assert (names, labels) == (["b.png", "sub/c.png"], [3, 12])
    np.testing.assert_array_equal(images[:], FACES[1:3])


def test_commas_in_names_need_another_mark(tmp_path):
    fill(tmp_path, "a, b.png")
    (tmp_path / "labels.csv").write_text("file;label\na, b.png;3\n")
    assert opened(tmp_path)[1] == [3]
    (tmp_path / "labels.csv").write_text('file,label\n"a, b.png",4\n')
    assert opened(tmp_path)[1] == [4]


def csv(text: str | bytes):
    def make(folder: Path) -> None:
        fill(folder, "a.png", "b.png", "10/c.png")
        (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


BAD_TABLES = {
    "csv is a folder": (lambda folder: fill(folder, "labels.csv/test_1_1.png"), "auto", "labels.csv"),
    "csv leads nowhere": (lambda folder: (folder / "labels.csv").symlink_to("gone"), "auto", "labels.csv"),
    "csv empty": (csv(""), "auto", "lists no images"),
    "csv only a header": (csv("file,label\n"), "auto", "lists no images"),
    "csv duplicate": (csv("a.png,1\n./a.png,1\n"), "auto", "line 2: './a.png' is listed a second time"),
    "csv not there": (csv("file,label\nc.png,1\n"), "auto", "line 2: 'c.png' is not there"),
    "csv outside": (csv("a.png,1\n../b.png,1\n"), "auto", "'../b.png'"),
    "csv absolute": (csv("a.png,1\n/etc/hostname,1\n"), "auto", "'/etc/hostname'"),
    "csv label a word": (csv("a.png,cat\n"), "auto", "label is 'cat'"),
    "csv label not whole": (csv("a.png,1\nb.png,1.5\n"), "auto", "line 2: label is '1.5'"),
    "csv label negative": (csv("a.png,-1\n"), "auto", "label is -1"),
    "csv label too large": (csv("a.png,11\n"), "auto", "a.png: label is 11"),
    "csv label endless": (csv("a.png," + "9" * 5000), "auto", "label is '999"),
    "csv columns": (csv("a.png,1\nb.png;1\n"), "auto", "line 2: 1 columns"),
    "csv three columns": (csv("a.png,1,2\n"), "auto", "3 columns"),
    "csv not utf-8": (csv(b"a.png,1\n\xff\xfe.png,1\n"), "auto", "UTF-8"),
    "csv null": (csv(b"a.png,1\n\0,1\n"), "auto", "labels.csv"),
    "csv open quote": (csv('"a.png,1\n'), "auto", "labels.csv"),
    "csv long cell": (csv("a" * 200_000 + ",1\n"), "auto", "labels.csv"),
    "csv lists a text": (csv("labels.csv,1\n"), "auto", "labels.csv"),
    "csv index": (csv(",file,label\n0,a.png,1\n7,b.png,1\n"), "auto", "line 3: row number is '7', expected 1"),
    "csv index ends": (csv(",file,label\n0,a.png,1\nb.png,x\n"), "auto", "line 3: 2 columns"),
    "csv backslashes outside": (csv("a.png,1\n..\\b.png,1\n"), "auto", "is not there"),
    "csv UTF-16 cut": (csv("a.png,1\nb.png,1\n".encode("utf-16")[:-1]), "auto", "labels.csv"),
}


@pytest.mark.parametrize("make, source, says", BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_bad_table_is_an_input_error_with_its_name(tmp_path, make, source, says):
    make(tmp_path)
    with pytest.raises(InputError) as raised:
        open_images([tmp_path], labels=source, classes=11)
    message = str(raised.value)
    assert str(tmp_path) in message and says in message and "\n" not in message and len(message) <= 500
