"""The public face, as a notebook uses it: small nets and images in files, arrays and pairs."""

import ast
import dataclasses
import inspect
import json
import re
import shlex
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from helpers import succeeds, write_official
from small import CLASSES, SHAPE, small_images, small_net, small_pixels

import jaxdefend as jd
from jaxdefend.attacks import lab
from jaxdefend.results.records import write_json

PACKAGE = Path(jd.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net and images in files."""
    folder = tmp_path_factory.mktemp("notebook")
    jd.write_model(small_net(), folder / "net.h5")
    pixels, labels = small_images(40)
    write_official(folder / "clean.h5", pixels, labels)
    np.savez(folder / "clean.npz", data=pixels, label=labels)
    write_official(folder / "glasses.h5", small_pixels(12, 5), np.full(12, 3))
    return folder


@pytest.fixture(scope="module")
def net(folder):
    return jd.load_net(folder / "net.h5")


@pytest.fixture(scope="module")
def clean(folder):
    return jd.open_images(folder / "clean.h5")


@pytest.fixture(scope="module")
def glasses(folder):
    return jd.open_images(folder / "glasses.h5")


# --- the face -------------------------------------------------------------------------------------------------------


def test_importing_it_imports_nothing_slow():
    code = (
        "import sys, jaxdefend as jd; jd.repairs.METHODS, jd.detectors.DETECTORS, jd.Interrupted; "
        "sys.exit(bool({'jax', 'numpy', 'flax', 'matplotlib', 'h5py'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_is_there_and_told():
    assert set(jd.__all__) <= set(dir(jd))
    for name in jd.__all__:
        assert getattr(jd, name) is getattr(jd, name)
        assert inspect.getdoc(getattr(jd, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'magic'"):
        _ = jd.magic


def test_a_command_leaves_the_functions_of_its_name_alone():
    import_module("jaxdefend.sweep")
    assert inspect.isfunction(inspect.unwrap(jd.sweep)) and inspect.ismodule(sys.modules["jaxdefend.sweep"])


def test_errors_have_types_of_their_own():
    assert issubclass(jd.InputError, ValueError) and issubclass(jd.Note, UserWarning)
    for kind in (jd.TrainingDiverged, jd.ProcessEnded, jd.Interrupted):
        assert issubclass(kind, RuntimeError) and not issubclass(kind, jd.InputError)


# --- nets and images ------------------------------------------------------------------------------------------------


def test_a_net_from_a_file(folder, net):
    for path in (str(folder / "net.h5"), folder / "net.h5"):
        again = jd.load_net(path)
        assert isinstance(again, jd.Net) and again.source == net.source
    assert (net.name, net.image_shape, net.classes, net.input_scale) == ("net.h5", SHAPE, CLASSES, "unit")
    assert net.convolutions == ("first", "last") and "net.h5" in repr(net)
    logits = net(small_pixels(5))
    assert isinstance(logits, np.ndarray) and logits.shape == (5, CLASSES)
    np.testing.assert_array_equal(logits, small_net()(small_pixels(5)))
    with pytest.raises(jd.InputError, match=r"missing\.h5"):
        jd.load_net(folder / "missing.h5")


def test_images_from_a_path_or_several(folder):
    pixels, labels = small_images(40)
    path = folder / "clean.h5"
    for images in (
        jd.open_images(str(path)),
        jd.open_images(path),
        jd.open_images([path]),
        jd.open_images([str(path)]),
    ):
        assert isinstance(images, jd.Images) and len(images) == 40 and images.shape == SHAPE
        np.testing.assert_array_equal(images.labels, labels)
        np.testing.assert_array_equal(images[0], pixels[0])
        np.testing.assert_array_equal(images[3:7], pixels[3:7])
        np.testing.assert_array_equal(np.stack(list(images)), pixels)
        assert len(images.names) == 40 and "40 images" in repr(images)
    assert len(jd.open_images([path, folder / "glasses.h5"])) == 52
    np.testing.assert_array_equal(jd.open_images(folder / "clean.npz")[:], pixels)


def test_nets_take_images_in_any_form(folder, net, clean):
    pixels, labels = small_images(40)
    expected = net(pixels)
    for images in (clean, jd.open_images(folder / "clean.npz"), (pixels, labels), list(pixels), pixels.astype(float)):
        np.testing.assert_array_equal(net(images), expected)
    np.testing.assert_array_equal(net(pixels[0])[0], net(pixels[:1])[0])


# --- the same result from images in any form, and what is refused ----------------------------------------------------

TRAINING = jd.repairs.FinePrune(epochs=2, batch=8, channels=2)
DETECTOR = jd.detectors.Persistence(masks=6)


def numbers(result):
    """Whatever a result holds, as text."""
    record = result.record() if hasattr(result, "record") else vars(result)
    return json.dumps(record, default=lambda value: np.asarray(value).tolist())


FUNCTIONS = {
    "sweep": lambda net, images: jd.sweep(net, images),
    "sweep test": lambda net, images: jd.sweep(net, small_images(40), test=images),
    "sweep poisoned": lambda net, images: jd.sweep(net, small_images(40), poisoned={"x": images}),
    "repair": lambda net, images: TRAINING(net, images),
    "measure": lambda net, images: jd.measure(net, images),
    "measure poisoned": lambda net, images: jd.measure(net, small_images(40), {"x": images}),
    "calibrate": lambda net, images: DETECTOR.calibrate(net, images, frr=0.1),
    "evaluate": lambda net, images: jd.detectors.evaluate(_guard(net), images),
    "evaluate poisoned": lambda net, images: jd.detectors.evaluate(_guard(net), small_images(40), {"x": images}),
    "verdicts": lambda net, images: _guard(net)(images),
    "answers": lambda net, images: jd.Guarded(net, small_net(1))(images),
}
WITHOUT_LABELS = ("calibrate", "verdicts", "answers")


def _guard(net):
    return DETECTOR.calibrate(net, small_pixels(30, 3), frr=0.1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_images_in_any_form_give_the_same(name, folder, net, clean):
    pixels, labels = small_images(40)
    # The names of the images are those of the files.
    forms = [(pixels, labels), (pixels.astype(np.float64), labels.tolist()), (list(pixels), labels)]
    expected, *others = (numbers(FUNCTIONS[name](net, form)) for form in forms)
    assert others == [expected] * 2
    found = numbers(FUNCTIONS[name](net, clean))
    assert found == expected or (name in ("verdicts", "answers") and "clean.h5" in found)
    if name in WITHOUT_LABELS:
        assert numbers(FUNCTIONS[name](net, pixels)) == expected
    else:
        with pytest.raises(jd.InputError, match="no labels"):
            FUNCTIONS[name](net, pixels)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("images", "said"),
    [
        (lambda: (image for image in small_pixels()), "once only"),
        (lambda: iter([small_pixels()]), "once only"),
        (lambda: (small_pixels(0), np.zeros(0, int)), "no images|empty"),
        (lambda: [], "no images|empty|expected"),
        (lambda: "clean.h5", "open_images"),
        (lambda: Path("clean.h5"), "open_images"),
        (lambda: (small_pixels() / 255, np.zeros(24, int)), "0…255|0–255|0…1|divided"),
        (lambda: (np.full((4, *SHAPE), np.nan), np.zeros(4, int)), "not a number|NaN|nan"),
        (lambda: (small_pixels(), np.zeros(23, int)), "labels"),
        (lambda: (small_pixels(), np.full(24, -1)), "label"),
        (lambda: None, "images"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_one_line(name, net, images, said):
    if images() is None and name == "sweep test":
        # There need not be any.
        return
    with pytest.raises(jd.InputError, match=said) as refused:
        FUNCTIONS[name](net, images())
    assert str(refused.value).isprintable() and len(str(refused.value)) <= 500
    assert "--" not in str(refused.value)


# --- results --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(net, clean, glasses):
    sweep = jd.sweep(net, clean, poisoned={"glasses": glasses})
    fixed = TRAINING(net, clean, seed=0)
    guard = DETECTOR.calibrate(net, clean, frr=(0.1, 0.05))
    measured = jd.measure({"badnet": net, "repaired": fixed.net}, clean, {"glasses": glasses})
    return {
        "sweep": sweep,
        "repair": fixed,
        "guard": guard,
        "verdicts": guard(glasses),
        "evaluation": jd.detectors.evaluate(guard, clean, {"glasses": glasses}),
        "measurement": measured,
        "answers": jd.Guarded(net, fixed.net, guard)(glasses),
    }


NAMES = ("sweep", "repair", "guard", "verdicts", "evaluation", "measurement", "answers")
DRAWN = ("sweep", "repair", "evaluation", "measurement")


@pytest.mark.parametrize("name", NAMES)
def test_results_are_frozen_and_can_be_looked_at(results, name, tmp_path):
    result = results[name]
    assert dataclasses.is_dataclass(result) and type(result).__doc__
    field = dataclasses.fields(result)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, field, None)
    shown = repr(result)
    assert shown and "object at 0x" not in shown and "array(" not in shown and len(shown) < 5000
    assert all(line.isprintable() for line in shown.splitlines())
    write_json(tmp_path / "record.json", {"result": result.record()})
    assert json.loads((tmp_path / "record.json").read_text())["result"]


@pytest.mark.parametrize("name", DRAWN)
def test_figures(results, name):
    figure = results[name].figure()
    assert isinstance(figure, matplotlib.figure.Figure) and figure.axes
    titled = results[name].figure("a title of mine")
    texts = [text.get_text() for text in titled.findobj(matplotlib.text.Text)]
    assert "a title of mine" in texts


def test_the_whole_way(results, net, clean, glasses, tmp_path):
    """As house.md has it: sweep, repair, guard, measure, answer; each from what came before."""
    sweep, fixed, guard = results["sweep"], results["repair"], results["guard"]
    assert isinstance(sweep.drop(4).net, jd.Net) and isinstance(fixed.net, jd.Net) and isinstance(guard, jd.Guard)
    jd.write_model(fixed.net, tmp_path / "repaired.h5")
    again = jd.load_net(tmp_path / "repaired.h5")
    np.testing.assert_array_equal(again(clean), fixed.net(clean))
    guard.save(tmp_path / "guard")
    loaded = jd.Guard.load(tmp_path / "guard" / "guard.json", net)
    np.testing.assert_array_equal(loaded(glasses).scores, results["verdicts"].scores)
    answers = results["answers"]
    agreed = net(glasses).argmax(axis=1) == fixed.net(glasses).argmax(axis=1)
    expected = np.where(agreed & ~results["verdicts"].rejected, net(glasses).argmax(axis=1), net.classes)
    np.testing.assert_array_equal(answers.labels, expected)
    hits = results["measurement"].poisoned["glasses"]["goodnet"].hits
    assert hits.count == (answers.goodnet == 3).sum() and hits.n == 12


# --- long work ------------------------------------------------------------------------------------------------------

LONG = {
    "sweep": lambda net, clean, progress: jd.sweep(net, clean, progress=progress),
    "repair": lambda net, clean, progress: TRAINING(net, clean, progress=progress),
    "measure": lambda net, clean, progress: jd.measure(net, clean, progress=progress),
    "calibrate": lambda net, clean, progress: DETECTOR.calibrate(net, clean, frr=0.1, progress=progress),
    "evaluate": lambda net, clean, progress: jd.detectors.evaluate(_guard(net), clean, progress=progress),
    "verdicts": lambda net, clean, progress: _guard(net)(clean, progress=progress),
    "answers": lambda net, clean, progress: jd.Guarded(net)(clean, progress=progress),
}


@pytest.mark.parametrize("name", LONG)
def test_long_work_says_how_far_it_is_and_can_be_stopped(name, net, clean):
    told = []
    LONG[name](net, clean, told.append)
    assert told and all(0 <= at.done <= at.total and at.title for at in told)
    assert told[-1].done == told[-1].total

    def stop(at):
        raise jd.Interrupted("enough")

    with pytest.raises(jd.Interrupted, match="enough"):
        LONG[name](net, clean, stop)


def test_training_goes_on_from_what_was_saved(net, clean, tmp_path):
    whole = TRAINING(net, clean, seed=5)

    def stop(at):
        if at.message:
            raise jd.Interrupted

    with pytest.raises(jd.Interrupted):
        TRAINING(net, clean, seed=5, progress=stop, saved=tmp_path / "run")
    again = TRAINING(net, clean, seed=5, saved=tmp_path / "run")
    np.testing.assert_array_equal(again.net(clean), whole.net(clean))
    assert again.history == whole.history


def test_it_works_outside_the_main_thread(net, clean):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(jd.measure, net, clean).result()
    assert found.clean["badnet"].hits == jd.measure(net, clean).clean["badnet"].hits


def test_nothing_is_printed(capfd, net, clean, glasses):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jd.sweep(net, clean, poisoned={"glasses": glasses})
        TRAINING(net, clean)
        jd.detectors.evaluate(_guard(net), clean, {"glasses": glasses})
    assert capfd.readouterr() == ("", "")


# --- no leak is a signature -------------------------------------------------------------------------------------------

LEAKS = re.compile(r"test|poison|option|namespace|attack|asr|trigger|kwargs|target$")


@pytest.mark.parametrize(
    "chooses",
    [
        *(
            pytest.param(kind.__call__, id=name)
            for name, kind in (jd.repairs.METHODS | {"grid": jd.repairs.Grid}).items()
        ),
        *(pytest.param(kind.calibrate, id=name) for name, kind in jd.detectors.DETECTORS.items()),
        jd.detectors.calibrate,
        jd.detectors.default_detector,
    ],
)
def test_what_chooses_is_given_clean_images_alone(chooses):
    for parameter in inspect.signature(chooses).parameters.values():
        assert not LEAKS.search(parameter.name), parameter
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), parameter


def test_what_chooses_imports_neither_attacks_nor_measurements():
    for path in [*(PACKAGE / "repairs").glob("*.py"), *(PACKAGE / "detectors").glob("*.py")]:
        modules = {
            node.module for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)
        }
        assert not any(module and module.startswith("jaxdefend.attacks") for module in modules), path.name


# --- the attack lab ---------------------------------------------------------------------------------------------------


def test_the_attack_lab_is_in_the_library_too():
    settings = jd.attacks.LabSettings(people=9, images=5, trigger="patch", target=3)
    assert [each.name for each in lab.face_sets(settings)] == ["valid", "test", "train", "test_patch"]


# --- docs/library.md --------------------------------------------------------------------------------------------------

PAGE = PACKAGE.parent / "docs" / "library.md"


def blocks_of(page: str) -> list[tuple[str, int, str]]:
    """Language, line and text of every fenced block."""
    found, opened = [], None
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened = (line[3:].strip(), number + 1, [])
            else:
                found.append((opened[0], opened[1], "\n".join(opened[2])))
                opened = None
        elif opened is not None:
            opened[2].append(line)
    return found


@pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no docs")
def test_the_page_is_python():
    code = [(line, text) for language, line, text in blocks_of(PAGE.read_text("utf-8")) if language == "python"]
    assert len(code) >= 5
    for line, text in code:
        compile(text, f"{PAGE.name}:{line}", "exec")


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no docs")
def test_the_page_runs(tmp_path, monkeypatch):
    """The commands that it begins with, then its Python, from top to bottom in one namespace."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for language, line, text in blocks_of(PAGE.read_text("utf-8")):
        if language == "python":
            code = compile("\n" * (line - 1) + text, str(PAGE), "exec")
            exec(code, namespace)
        elif text.startswith("python -m jaxdefend."):
            _, _, module, *words = shlex.split(text)
            succeeds(module.removeprefix("jaxdefend."), *words, cwd=tmp_path)
