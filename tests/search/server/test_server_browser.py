"""The page in a browser: Debian's Chromium through Playwright. Skipped where either is missing.

``REGIONVLP_AXE`` names a file ``axe.min.js`` (npm install axe-core) for the check of accessibility.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regionvlp.search.server.app import create_app
from regionvlp.search.server.desk import Desk
from regionvlp.search.server.run import listening_socket
from regionvlp.search.server.settings import ServerSettings

SHIFT = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => { for (const e of list.getEntries()) if (!e.hadRecentInput) sum += e.value; })
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 500);
})"""


@pytest.fixture(scope="module")
def address(desk: Desk) -> Iterator[str]:
    import uvicorn

    settings = ServerSettings(port=0)
    # All clips of this index are named alike, so that it cannot be told whether anything answers.
    with pytest.MonkeyPatch.context() as patch, listening_socket(settings) as opened:
        patch.setattr("regionvlp.search.answers.UNLIKELY", 0.0)
        server = uvicorn.Server(uvicorn.Config(create_app(desk, settings), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        yield f"http://localhost:{opened.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page; what goes wrong on it fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert wrong == []


def lit(page: Any) -> list[str]:
    """The labels that are to be seen on the first answer."""
    found: list[str] = page.eval_on_selector_all(
        ".a:first-child .stage text",
        "all => all.filter(t => getComputedStyle(t).display != 'none' && getComputedStyle(t).visibility == 'visible')"
        ".map(t => t.textContent)",
    )
    return found


def test_a_word_lights_up_its_boxes(page: Any, address: str) -> None:
    page.goto(f"{address}/?q=left+right")
    assert lit(page) == ["left half"]
    page.click(".a:first-child .ws label:has-text('right')")
    assert lit(page) == ["right half"]
    first = page.eval_on_selector(".a:first-child .ts input:checked", "i => i.value")
    other = page.eval_on_selector(".a:first-child .ts input:not(:checked)", "i => i.value")
    page.check(f".a:first-child .ts [value='{other}']")
    seen = page.eval_on_selector_all(
        ".a:first-child .still", "all => all.filter(i => i.offsetParent).map(i => i.classList[1])"
    )
    assert seen == [f"t{other}"]
    assert first != other


def test_the_address_holds_the_query_and_the_back_key_brings_it_back(page: Any, address: str) -> None:
    page.goto(address)
    page.fill("#q", "left half")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('left half')")
    assert page.url == f"{address}/?q=left+half"
    page.click(".a:first-child a:has-text('More like this')")
    page.wait_for_selector("h1:has-text('like ')")
    assert page.input_value("#q") == ""
    page.go_back()
    page.wait_for_selector("h1:has-text('left half')")
    assert page.input_value("#q") == "left half"
    page.go_back()
    page.wait_for_selector("h1:has-text('Some of these videos')")
    page.go_forward()
    page.wait_for_selector("h1:has-text('left half')")


def test_the_keyboard_is_enough(page: Any, address: str) -> None:
    page.goto(f"{address}/?q=left+right")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.ws') != null"):
            break
    page.keyboard.press("ArrowRight")
    assert lit(page) == ["right half"]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"


def test_a_moment_plays_or_says_why_not(page: Any, address: str) -> None:
    page.goto(f"{address}/?q=left")
    page.hover(".a:first-child .stage")
    page.wait_for_selector(".a:first-child :is(video, .sorry:not([hidden]))")
    page.mouse.move(1, 1)
    page.wait_for_selector("video", state="detached")
    assert page.get_attribute(".a:first-child .play", "aria-pressed") == "false"


def test_a_video_that_cannot_be_played_is_told(page: Any, address: str) -> None:
    page.route("**/media*", lambda route: route.fulfill(body="no video", content_type="video/mp4"))
    page.goto(f"{address}/?q=left")
    page.click(".a:first-child .play")
    page.wait_for_selector(".a:first-child .sorry:visible")
    assert page.is_visible(".a:first-child .still >> nth=0") or page.is_visible(".a:first-child .thumb")


@pytest.mark.parametrize("path", ["/", "/?q=left+right", "/?q=left&folder=sub"])
def test_a_phone_needs_no_scrolling_sideways(browser: Any, address: str, path: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_nothing_shifts(page: Any, address: str) -> None:
    for path in ("/", "/?q=left+right"):
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate(SHIFT) == 0


def test_it_works_with_scripts_blocked(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.fill("#q", "left right")
    page.click("text=Search")
    assert page.url.startswith(f"{address}/?q=left+right")
    page.click(".a:first-child .ws label:has-text('right')")
    assert page.is_checked(".a:first-child .ws label:has-text('right') input")
    assert not page.is_visible(".play >> nth=0")
    assert page.is_visible(".a:first-child .still >> nth=0") or page.is_visible(".a:first-child .still >> nth=1")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/?q=left+right", "/?q=zebra", "/?q=left&after=nonsense"])
def test_axe_finds_nothing(browser: Any, address: str, path: str, scheme: str) -> None:
    axe = Path(os.environ.get("REGIONVLP_AXE", "axe.min.js"))
    if not axe.is_file():
        pytest.skip("set REGIONVLP_AXE to axe.min.js (npm install axe-core)")
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address + path)
    page.add_script_tag(path=str(axe))
    found = page.evaluate("axe.run()")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in found] == []
    context.close()
