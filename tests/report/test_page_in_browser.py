"""The page of a run in a real browser: it is drawn, and everybody can use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from fakes.made_pages import made_front_run, made_run, whole_result
from needs import needs
from playwright.sync_api import Browser, Page

from edgeprune.pipeline.report import write_report

pytestmark = [needs("chromium"), pytest.mark.soak]

Scheme = Literal["light", "dark"]
#: The widths of a desk and of a phone.
DESK, PHONE = 1280, 390

#: How many dots of a canvas are painted, and have about each of the colours that the style sheet has by these names.
_COUNTED = """(canvas, names) => {
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const data = context.getImageData(0, 0, copy.width, copy.height).data;
  const style = getComputedStyle(document.documentElement);
  const colours = names.map((name) => style.getPropertyValue(name).trim());
  const wanted = colours.map((colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));
  const found = names.map(() => 0);
  let painted = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] === 0) continue;
    painted += 1;
    wanted.forEach((rgb, place) => {
      found[place] += rgb.every((part, k) => Math.abs(data[i + k] - part) < 6) && data[i + 3] > 250;
    });
  }
  return [painted, ...found];
}"""
#: The least width and height of the first marks of each picture that is shown: [picture, marks].
_BOXES = """([picture, marks]) => {
  const shown = [...document.querySelectorAll(picture)].filter((each) => each.checkVisibility());
  return shown.map((each) => {
    const boxes = [...each.querySelectorAll(marks)].slice(0, 3).map((mark) => mark.getBoundingClientRect());
    return boxes.length ? Math.min(...boxes.flatMap((box) => [box.width, box.height])) : 0;
  });
}"""
#: The colours of trials: tried, beaten by none, chosen.
MARKS = ["--tried", "--best", "--chosen"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, long_run: Path) -> dict[str, Path]:
    """Pages by what they are of."""
    root = tmp_path_factory.mktemp("pages")
    missed = whole_result()
    missed["status"] = "budget-not-met"
    missed["budget"] |= {"answer": "not met", "met": False, "recommended": False}
    missed["budget"]["checks"][0] |= {"answer": "not met", "met": False, "value": 2.5}
    nasty = whole_result("instructions")
    name = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    nasty["config"]["model"] = nasty["classes"][0]["name"] = nasty["compressed"]["layers"][0]["name"] = name
    one = made_run(root / "one")
    runs = {
        "one": [one],
        "long": [long_run],
        "front": [made_front_run(root / "front")],
        "several": [one, made_run(root / "missed", result=missed), made_run(root / "nasty", result=nasty)],
        "nasty": [root / "nasty"],
    }
    for what, folders in runs.items():
        write_report(folders, root / f"{what}.html")
    return {what: root / f"{what}.html" for what in runs}


@contextmanager
def opened(browser: Browser, page: Path, width: int = DESK, scheme: Scheme = "light") -> Iterator[Page]:
    """The page in the browser; nothing may be said on its console, and nothing asked of the network."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown = context.new_page()
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    shown.on("request", lambda request: None if request.url == page.as_uri() else said.append(request.url[:80]))
    shown.goto(page.as_uri())
    yield shown
    context.close()
    # The page's empty icon is no request of the network.
    assert [each for each in said if not each.startswith("data:")] == []


@pytest.mark.parametrize("what", ["long", "front", "several", "nasty"])
@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_every_picture_is_drawn(
    what: str, width: int, scheme: Scheme, browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages[what], width, scheme) as page:
        plots = page.locator(".plot")
        assert plots.count() == page.locator("figure.chart").count() > 0
        for plot in plots.all():
            box = plot.bounding_box()
            assert box is not None
            assert box["width"] > 200
            assert len(plot.get_attribute("aria-label") or "") > 40
            (canvas,) = plot.locator("canvas").all()
            assert canvas.evaluate(_COUNTED, [])[0] > 1000
        for canvas in page.locator(".trials canvas").all():
            assert min(canvas.evaluate(_COUNTED, MARKS)) > 10
        for picture, marks in ((".lane", ".spike"), (".bars svg", ".part")):
            boxes = page.evaluate(_BOXES, [picture, marks])
            assert boxes
            assert min(boxes) > 0.4
        # Wide tables scroll in frames of their own.
        page_width = page.evaluate("document.documentElement.scrollWidth")
        assert page_width <= width


@pytest.mark.parametrize(
    ("what", "width", "scheme"),
    [
        ("one", DESK, "light"),
        ("one", DESK, "dark"),
        ("one", PHONE, "light"),
        ("one", PHONE, "dark"),
        ("front", DESK, "light"),
        ("front", PHONE, "dark"),
        ("several", DESK, "dark"),
        ("several", PHONE, "light"),
    ],
)
def test_axe_finds_nothing_serious(
    what: str, width: int, scheme: Scheme, browser: Browser, pages: dict[str, Path]
) -> None:
    with opened(browser, pages[what], width, scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found = Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in serious]


def _told(page: Page) -> str:
    return page.locator(".told").inner_text()


def test_pointing_at_a_trial_tells_its_widths(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["long"]) as page:
        assert _told(page).startswith("Trial 5, chosen: ")
        over = page.locator(".trials .u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        told = _told(page)
        assert not told.startswith("Trial 5,")
        assert "inputs " in told
        assert "of 300" in told


def test_the_keyboard_goes_from_trial_to_trial(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["one"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.turn") == "1":
                break
        page.keyboard.press("Enter")
        assert _told(page).startswith("Trial 6")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        assert _told(page).startswith("Trial 5, chosen")


def until(page: Page, condition: str) -> None:
    """Wait for it. Playwright's own way may evaluate inside of the page, which its policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {condition}")


def test_paper_is_white_and_its_pictures_too(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    with opened(browser, pages["front"], scheme="dark") as page:
        back = "getComputedStyle(document.body).backgroundColor"
        canvas = page.locator(".trials canvas")
        screen = page.evaluate(back)
        page.emulate_media(media="print", color_scheme="dark")
        until(page, "document.documentElement.classList.contains('paper')")
        assert page.evaluate(back) == "rgb(255, 255, 255)" != screen
        assert canvas.evaluate(_COUNTED, ["--chosen"])[1] > 10
        assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--chosen')") == "#c2410c"
        assert not page.locator("nav").is_visible()
        data: Any = page.pdf(format="A4")
        assert len(data) > 20_000
        page.emulate_media(media="screen", color_scheme="dark")
        until(page, "!document.documentElement.classList.contains('paper')")
        assert page.evaluate(back) == screen
        assert canvas.evaluate(_COUNTED, ["--chosen"])[1] > 10


def test_pictures_follow_the_light(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["front"]) as page:
        canvas = page.locator(".trials canvas")
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--chosen')") == "#ff9a5c"
        for _ in range(50):
            if canvas.evaluate(_COUNTED, ["--chosen"])[1] > 10:
                break
            page.wait_for_timeout(100)
        else:
            pytest.fail("the picture was not drawn again")


def test_pictures_follow_the_window(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["front"]) as page:
        page.set_viewport_size({"width": PHONE, "height": 800})
        until(page, "document.querySelector('.trials .uplot').clientWidth < 390")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


def test_without_scripts_the_figures_are_there(browser: Browser, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["long"].as_uri())
    assert page.get_by_text("and does not run here").first.is_visible()
    page.locator(".trials summary").click()
    assert page.locator(".trials table tbody tr").count() == 975
    context.close()
