"""The page: one file, nothing fetched, everything escaped, everything there without a script."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

import jaxdefend
from jaxdefend import InputError
from jaxdefend.reports import page, write_report
from jaxdefend.reports.facts import gathered


class Parsed(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data):
        self.words.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(made, tmp_path_factory):
    path = write_report(tmp_path_factory.mktemp("page") / "new" / "report.html", *made.results, is_synthetic=True)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(text):
    return Parsed(text)


def test_it_has_every_section(parsed):
    ids = {attributes["id"] for attributes in parsed.of("section") if "id" in attributes}
    expected = {
        "verdict",
        "numbers",
        "net",
        "data",
        "curve",
        "activations",
        "repairs",
        "guard",
        "gallery",
        "confusions",
    }
    assert ids == expected | {"unchecked", "origins"}
    targets = {attributes["href"][1:] for attributes in parsed.of("a")}
    assert targets <= {attributes.get("id") for _, attributes in parsed.tags}


def test_nothing_is_fetched(text, parsed):
    for tag, attributes in parsed.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
                assert value.startswith(("data:", "#")), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
    assert "@import" not in text and "url(" not in text.replace("url(#arrow)", "")
    assert len(text.encode()) < 5 * 2**20


def test_names_from_files_stay_text(text, parsed):
    assert "<script>alert" not in text and "<b>glasses" not in text
    words = "".join(parsed.words)
    assert "<script>alert(1)</script>" in words and "<b>glasses</b>" in words
    # The data of the slider, the script, and nothing else.
    assert [attributes.get("type") for attributes in parsed.of("script")] == ["application/json", None]
    data = json.loads(re.search(r'id="curve-data">(.*?)</script>', text, re.DOTALL)[1])
    assert "<b>glasses</b>" in data["curve"][-1]["name"]


def test_the_policy_allows_this_script_and_style_alone(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_it_is_made_for_people_who_do_not_see_it(parsed):
    assert all(attributes.get("alt") for attributes in parsed.of("img"))
    assert all("aria-label" in a or "role" in a for a in parsed.of("svg"))
    assert [attributes["lang"] for attributes in parsed.of("html")] == ["en"]
    assert all(attributes.get("scope") == "col" for attributes in parsed.of("th"))
    assert {a["for"] for a in parsed.of("label")} == {"pruned"}
    assert len(parsed.of("h1")) == 1 and len(parsed.of("main")) == 1


def test_the_numbers_are_there(made, text):
    assert str(made.measurement.clean["badnet"].hits).replace(" %", "\xa0%") in text
    for drop in made.sweep.repaired:
        assert f"drop {drop.points}" in text
    assert "What was not checked" in text and "synthetic faces" in text
    assert f"jaxdefend {jaxdefend.__version__}" in text


@pytest.mark.parametrize(
    "kept", ["sweep", "measurement", "guard", "evaluation", "gallery", "confusions", "summary", "repair"]
)
def test_any_result_alone(made, kept, tmp_path):
    found = Parsed(write_report(tmp_path / "one.html", getattr(made, kept)).read_text(encoding="utf-8"))
    assert (found.of("h1") and "not measured" in "".join(found.words)) or kept in ("sweep", "measurement")


def test_a_net_and_a_comparison(made, tmp_path):
    from jaxdefend.reports import compare

    found = compare(made.net, made.valid, {"glasses": made.poisoned["<b>glasses</b>"]})
    text = write_report(tmp_path / "two.html", made.net, found, title="A & B").read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in text and "Nets × repairs × detectors" in text


def test_an_audit(made, tmp_path):
    class Audit:
        suspects = ()

        def record(self):
            return {"verdict": "nothing found", "suspects": [], "graph": [{"where": "<i>", "message": "a path"}]}

    text = write_report(tmp_path / "three.html", made.net, Audit()).read_text(encoding="utf-8")
    assert "found no backdoor" in text and "&lt;i&gt;" in text


def test_fewer_pictures_where_the_page_grows_too_large(made, monkeypatch):
    facts = gathered(made.results)
    whole = page.html(facts)
    monkeypatch.setattr(page, "LIMIT", len(whole.encode()) - 1000)
    smaller = page.html(facts)
    assert len(smaller) < len(whole) and "What was not checked" in smaller


def test_bad_input(made, tmp_path):
    with pytest.raises(InputError, match="nothing to report"):
        write_report(tmp_path / "none.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", made.sweep)
    assert not list(tmp_path.glob("*.html"))
