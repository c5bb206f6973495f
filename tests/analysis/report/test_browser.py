"""The report in a real browser, Debian's Chromium, with no way out of the machine."""

import os
import shutil

import pytest

from analysis.rows import read_rows
from analysis.table import build
from tests.analysis import studies

pytest.importorskip("jinja2", reason="a report needs the extra [report]")
pytest.importorskip("plotly", reason="a report needs the extra [report]")
pytest.importorskip("itables", reason="a report needs the extra [report]")
if not os.environ.get("CI"):  # where it must be installed: there the import below fails
    pytest.importorskip("playwright", reason="playwright drives the browser")

from playwright import sync_api

from analysis.report.__main__ import main

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("no chromium here (apt-get install chromium)", allow_module_level=True)

PARETO, TABLE = "s1-pareto-pareto", "s1-lines-table"
#: Numbers of every trace but the front, which only joins points that other traces draw.
DRAWN = """id => document.getElementById(id).data.filter(trace => trace.name !== "front of the means")
    .flatMap(trace => trace.x.map((x, i) => [x, trace.y[i], trace.error_y?.array[i] ?? null]))"""
#: What stands on the screen: every marker's place, turned back into numbers by the axes.
SEEN = """id => { const plot = document.getElementById(id); const layout = plot._fullLayout;
    return [...plot.querySelectorAll(".scatterlayer .trace .points path")].map(path => {
        const [, x, y] = path.getAttribute("transform").match(/translate\\(([-\\d.]+),([-\\d.]+)\\)/);
        return [layout.xaxis.p2d(+x), layout.yaxis.p2d(+y)]; }); }"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Some of the report's models, three seeds, a leaky one, and costs that tell all apart."""
    names = ["Transformer", "RetNet", "Type A 10:2", "Type A 2:10", "Type B 6:6", "Type C 4:4"]
    runs = [(studies.model(name, name, macs_fvcore=40_000_001 + 7 * i), {}) for i, name in enumerate(names)]
    runs.append((studies.model("Type A 6:6", "leaky", -0.5, leaky=True, valid_ppl_causal_eval=40.0), {}))
    folder = studies.planned(tmp_path_factory.mktemp("browser") / "seen", "ar_ratio", runs)
    return studies.with_metrics(folder, steps=40)


@pytest.fixture(scope="module")
def lines(study):
    return {line["label"]: line for line in build("seen", read_rows(study)).lines}


@pytest.fixture(scope="module")
def seen(study):
    """The page after it drew itself, and what the browser asked for and complained of meanwhile."""
    assert CHROMIUM, "CI installs chromium: apt-get install chromium"
    assert main([str(study)]) == 0
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on(
            "console",
            lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto((study / "report.html").as_uri())
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        yield page
        browser.close()


def test_it_draws_all_its_charts_and_asks_for_nothing(seen, study):
    charts = seen.locator(".chart")
    assert charts.count() >= 5
    for index in range(charts.count()):
        assert charts.nth(index).locator("svg.main-svg").count(), (
            f"{charts.nth(index).get_attribute('id')} is empty"
        )
    assert seen.asked[0] == (study / "report.html").as_uri()
    assert all(url.startswith("blob:") for url in seen.asked[1:]), seen.asked
    assert not seen.complaints


def test_its_own_policy_refuses_the_network(seen):
    refused = seen.evaluate("fetch('https://example.org').then(() => 'answered', error => error.name)")
    assert refused == "TypeError"
    assert any("Content Security Policy" in complaint for complaint in seen.complaints)
    seen.complaints.clear()


def test_a_click_on_a_heading_sorts_by_the_value(seen, lines):
    def order():
        return seen.locator(f"#{TABLE} tbody tr:not(.reference) td:first-child").all_inner_texts()

    for title, column in (("(valid_ppl)", "valid_ppl"), ("(macs_fvcore)", "macs_fvcore")):
        head = seen.locator(f"#{TABLE} th[title*='{title}']")
        behind = column == "valid_ppl"  # what looked ahead comes after every likelihood
        rising = sorted(lines, key=lambda name: (behind and lines[name]["leaky"], lines[name][column]))
        head.click()
        seen.wait_for_selector(f"#{TABLE} th[title*='{title}'][aria-sort=ascending]")
        assert order() == rising
        head.click()
        seen.wait_for_selector(f"#{TABLE} th[title*='{title}'][aria-sort=descending]")
        assert order() == rising[::-1]


def test_the_drop_down_switches_the_convention(seen, lines):
    chart = seen.locator(f"#{PARETO}")
    chart.scroll_into_view_if_needed()
    for words, column in (
        ("training forward, counted in full", "macs_train_forward"),
        ("decoding at context 2,048", "macs_decode_2048"),
        ("traced by fvcore", "macs_fvcore"),
    ):
        if column != "macs_train_forward":  # it opens with this one
            chart.locator(".updatemenu-header").click()
            chart.locator(".updatemenu-dropdown-button", has_text=words).click()
            seen.wait_for_function(
                "([id, words]) => document.getElementById(id).layout.xaxis.title.text.includes(words)",
                arg=[PARETO, words],
            )
        wanted = sorted([one[column], one["valid_ppl"], one["valid_ppl_ci95"]] for one in lines.values())
        assert sorted(seen.evaluate(DRAWN, PARETO)) == wanted, "to the last digit"
        seen.wait_for_timeout(600)  # plotly moves its points for half a second
        for x, y, _ in wanted:
            near = [
                point
                for point in seen.evaluate(SEEN, PARETO)
                if point[0] == pytest.approx(x, rel=1e-3) and point[1] == pytest.approx(y, rel=1e-3)
            ]
            assert near, f"no marker on the screen at {x}, {y}"
    assert not seen.complaints


@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits_the_window(seen, width):
    seen.set_viewport_size({"width": width, "height": 900})
    for _ in range(60):  # charts follow the window a moment later
        seen.wait_for_timeout(300)
        if (found := seen.evaluate("document.documentElement.scrollWidth")) <= width:
            break
    assert found <= width
    assert not seen.complaints
