"""The report: one HTML file that needs nothing else."""

import base64
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from jaxdefend import InputError, __version__
from jaxdefend.reports.blocks import Cell, Table, rows
from jaxdefend.reports.facts import Facts, Origin, gathered
from jaxdefend.reports.saved import Saved
from jaxdefend.reports.sections import sections
from jaxdefend.reports.verdict import numbers, unchecked, verdict
from jaxdefend.results.records import replacing
from jaxdefend.results.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

# What a mail takes, and a browser opens at once.
LIMIT = 5 * 2**20

# Pictures of each kind; fewer where the page would grow beyond its limit.
_PICTURES = (12, 6, 3, 1, 0)


def write_report(
    path: str | Path,
    *results: object,
    origins: Sequence[Origin] = (),
    is_synthetic: bool = False,
    title: str = "",
) -> Path:
    """The results on one page that answers what the net is, what the backdoor does, and what the defenses do.

    Args:
        path: the HTML file.
        results: any of `Net`, `Sweep`, `Repair`, `Measurement`, `Guard`, `Evaluation`, an audit, and what this room
            makes (`Summary`, `Walk`, `Activations`, `Samples`, `Gallery`, `Confusions`, `Demonstration`,
            `Comparison`); or what `read_saved` finds in result files. All of one net.
        origins: how each part was made; by default it says that they were made from Python.
        is_synthetic: whether the images are drawn ones, which say nothing about real photographs.
        title: what the page is called; by default after the net.
    Raises: InputError if there is nothing to show, the results are of different nets, or the file cannot be written.
    """
    path = Path(path)
    if not results:
        raise InputError("nothing to report: expected results, such as a sweep")
    facts = gathered(results)
    try:
        text = html(facts, origins=origins, is_synthetic=is_synthetic, title=title)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
        files = [result.path for result in results if isinstance(result, Saved)]
        if not files or isinstance(error, InputError):
            raise
        shown = printable(", ".join(map(str, files)), 200)
        raise InputError(
            f"{shown}: not what the commands write ({printable(error, 80)} is missing or wrong)"
        ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written ({error.strerror}); choose another place") from error
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def html(facts: Facts, *, origins: Sequence[Origin] = (), is_synthetic: bool = False, title: str = "") -> str:
    """The page as text, with as many pictures as fit."""
    text = ""
    for pictures in _PICTURES:
        text = _rendered(facts, origins, is_synthetic, title, pictures)
        if len(text.encode()) <= LIMIT:
            break
    return text


def _rendered(facts: Facts, origins: Sequence[Origin], is_synthetic: bool, title: str, pictures: int) -> str:
    found = verdict(facts)
    lines = [[who, what, rate] for who, what, rate in numbers(facts)]
    template = _environment().get_template("page.html")
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return template.render(
        title=title or f"{printable(facts.name, 100) or 'net'}: backdoor report",
        verdict=found,
        numbers=Table("The numbers behind it", ["who", "what", "share of images"], rows(lines)) if lines else None,
        sections=sections(facts, pictures),
        unchecked=unchecked(facts, {"synthetic": is_synthetic}),
        origins=_origins([*facts.origins, *origins]),
        made=f"{datetime.now():%Y-%m-%d %H:%M}",
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _origins(origins: Sequence[Origin]) -> list[Table]:
    """How to make each number again: the commands, and what they ran on."""
    if not origins:
        packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax", "numpy"))
        versions = f"jaxdefend {__version__}, python {python_version()}, {packages}"
        origins = [Origin("everything", "from Python", "", "", "", "", versions, "", "")]
    lines: list[Sequence[Any]] = [
        [
            f"{of.part} ({of.file})" if of.file else of.part,
            Cell(printable(of.command, 1000)),
            Cell(of.seed or "–"),
            Cell(of.seconds or "–"),
        ]
        for of in origins
    ]
    told = {"net": "model", "sha256": "sha256", "versions": "versions", "device": "device"}
    with_what = [
        [name, value]
        for name, field in told.items()
        for value in dict.fromkeys(getattr(of, field) for of in origins)
        if value
    ]
    return [
        Table("Where each number comes from", ["part", "command", "seed", "seconds"], rows(lines)),
        Table("What it was made with", ["", ""], rows(with_what)),
    ]


def _hash(text: str) -> str:
    """What the page's policy allows: this style and this script, and nothing else."""
    return f"sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Everything is escaped, whatever the template is called.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tight"] = _tight
    return environment


def _tight(text: str) -> str:
    """No line ends between a number and its sign."""
    return str(text).replace(" %", "\u00a0%")
