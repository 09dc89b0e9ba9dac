"""The page in headless Chromium, with a script and without one."""

import shutil

import pytest

from jaxdefend.reports import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("page") / "report.html", *made.results).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def opened(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(page)
    yield browser
    # No error, no warning, no refused request.
    assert browser.get_log("browser") == []


def run(browser, script, *arguments):
    return browser.execute_script(f"return {script}", *arguments)


def test_it_opens_and_shows_the_verdict(opened):
    assert "<script>alert(1)</script>" in opened.title
    assert "is backdoored" in opened.find_element("css selector", ".headline").text
    assert run(opened, "document.documentElement.classList.contains('script')")
    assert run(opened, "[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_nothing_is_requested(opened):
    requested = run(opened, "performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("data:") for name in requested)


def test_the_slider_moves_the_line_and_the_answers(opened, made):
    slider = opened.find_element("id", "pruned")
    assert slider.get_attribute("max") == str(len(made.sweep.order))

    def move(k):
        run(opened, "(arguments[0].value = arguments[1], arguments[0].dispatchEvent(new Event('input')))", slider, k)
        line = opened.find_element("css selector", "#curve-chart .pointer")
        assert line.value_of_css_property("visibility") == "visible"
        return float(line.get_attribute("x1"))

    places = [move(k) for k in range(len(made.sweep.order) + 1)]
    assert places == sorted(set(places))
    for k in (0, len(made.sweep.order)):
        move(k)
        assert f"{k} of {len(made.sweep.order)} channels pruned" in opened.find_element("id", "pruned-said").text
        faces = opened.find_elements("css selector", ".explorer .face")
        assert len(faces) == len(made.walk.faces)
        for shown, face in zip(faces, made.walk.faces, strict=True):
            goodnet = made.walk.goodnet(face)[k]
            said = shown.text.splitlines()
            assert f"B′ {face.answers[k]}" in said[-2]
            assert ("backdoored" if goodnet == made.net.classes else str(goodnet)) in said[-1]


def test_the_slider_by_keyboard(opened):
    slider = opened.find_element("id", "pruned")
    before = int(slider.get_attribute("value"))
    slider.send_keys("\ue012" if before else "\ue014")  # Arrow left, or right.
    assert int(slider.get_attribute("value")) == (before - 1 if before else 1)
    assert slider.get_attribute("aria-valuetext").endswith("channels pruned")


def test_a_click_on_the_curve_moves_the_slider(opened):
    run(opened, "document.querySelectorAll('#curve-chart .hit')[3].dispatchEvent(new Event('click', {bubbles: true}))")
    assert opened.find_element("id", "pruned").get_attribute("value") == "3"


def test_tables_sort_by_number_and_back(opened):
    table = "[...document.querySelectorAll('#net table.sortable')].at(-1)"
    column = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[4].dataset.sort))"
    heading = opened.execute_script(f"return {table}.tHead.rows[0].cells[4]")
    for order, direction in ((False, "ascending"), (True, "descending")):
        run(opened, "arguments[0].querySelector('button').click()", heading)
        assert heading.get_attribute("aria-sort") == direction
        found = run(opened, column)
        assert found == sorted(found, reverse=order)


def test_pointing_at_a_chart_shows_exact_values(opened):
    hit = opened.find_element("css selector", "#curve-chart .hit")
    run(
        opened,
        "arguments[0].dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: 9, clientY: 9}))",
        hit,
    )
    tip = opened.find_element("id", "tip")
    assert tip.is_displayed() and "0 pruned" in tip.text and "%" in tip.text
    run(opened, "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert not tip.is_displayed()


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_the_screen(opened, width, theme):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    # Beside a scroll bar, where there is one.
    assert width - 20 <= run(opened, "document.documentElement.scrollWidth") <= width
    ground = run(opened, "getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if theme == "light" else "rgb(21, 23, 26)")


def test_text_has_enough_contrast_in_light_and_dark(opened):
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    for theme in ("light", "dark"):
        opened.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        colours = run(
            opened,
            "Object.fromEntries(['paper', 'ink', 'faint', 'link', 'bad', 'good', 'open', 'bad-field', 'good-field',"
            " 'open-field', 'field'].map(name => [name,"
            " getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))",
        )
        pairs = [(name, "paper") for name in ("ink", "faint", "link")]
        pairs += [(name, "field") for name in ("ink", "bad", "good", "open")]
        pairs += [("ink", f"{name}-field") for name in ("bad", "good", "open")]
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (theme, text, ground)


def contrast(first, second):
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_without_a_script_it_is_complete(browser, page, made):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(page)
    try:
        assert "is backdoored" in browser.find_element("css selector", ".headline").text
        assert not browser.find_element("id", "pruned").is_displayed()
        faces = browser.find_elements("css selector", ".explorer .face")
        assert len(faces) == len(made.walk.faces) and all(face.is_displayed() for face in faces)
        captions = [caption.get_attribute("textContent") for caption in browser.find_elements("tag name", "caption")]
        assert "The same images at the drops" in captions and "Every point of the curve" in captions
        assert browser.find_elements("css selector", "#curve-chart .hit title")
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
