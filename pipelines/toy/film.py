"""The picture and the animation of the page that the manuals show: ``python -m regionvlp.pipelines.toy.film OUT``.

In: nothing, or an index. Out: ``OUT/page.png`` and ``OUT/page.webp``, twenty seconds of somebody who asks. Needs
Playwright and Chromium, which nothing else here does.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.bench.serve import made_index, serving
from regionvlp.pipelines.output import console_for

WIDTH, HEIGHT = 1120, 700  # pixels of the window
SMALL = (840, 525)  # of the animation
FRAMES_PER_SECOND = 5
SECONDS = 20
PICTURES_COME = 1000  # milliseconds
QUERY, ABSENT = "a yellow striped ring", "an accordion on a glacier"


class Film:
    """Pictures of a page, one after the other.

    Args:
        page: of Playwright.
    """

    def __init__(self, page: Any) -> None:
        self.page, self.pictures = page, list[bytes]()

    def hold(self, seconds: float) -> None:
        """Films for a while."""
        for _ in range(round(seconds * FRAMES_PER_SECOND)):
            self.pictures.append(self.page.screenshot())
            self.page.wait_for_timeout(1000 / FRAMES_PER_SECOND / 2)

    def type(self, text: str) -> None:
        """Films somebody who types, three letters a picture, and asks."""
        self.page.fill("#q", "")
        for end in range(3, len(text) + 3, 3):
            self.page.fill("#q", text[:end])
            self.hold(1 / FRAMES_PER_SECOND)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(f".told q:text-is('{text}')")
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(PICTURES_COME)

    def save(self, path: Path) -> None:
        """Writes an animated WebP that goes on for ever."""
        from PIL import Image

        frames = [Image.open(io.BytesIO(data)).convert("RGB").resize(SMALL) for data in self.pictures]
        how: dict[str, Any] = {"duration": 1000 // FRAMES_PER_SECOND, "loop": 0, "quality": 80, "method": 4}
        frames[0].save(path, save_all=True, append_images=frames[1:], **how)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--index", type=click.Path(path_type=Path), help="An index.  [one of the toy world]")
@click.option("--query", default=QUERY, show_default=True)
def main(out: Path, index: Path | None, query: str) -> None:
    """Write OUT/page.png and OUT/page.webp."""
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(index or made_index(Path(scratch))) as (host, _),
        _page() as page,
    ):
        film = Film(page)
        page.goto(f"http://{host}/")
        page.wait_for_load_state("networkidle")
        film.hold(1)
        film.type(query)
        film.hold(2)
        page.screenshot(path=str(out / "page.png"))
        for word in page.query_selector_all(".a:first-child .ws label")[1:3]:
            word.click()
            film.hold(1.6)
        for time in page.query_selector_all(".a:first-child .ts label")[:4]:
            time.click()
            film.hold(0.8)
        page.hover(".a:first-child .stage")
        film.hold(3)
        page.mouse.move(2, 2)
        film.type(ABSENT)
        film.hold(max(1.0, SECONDS - len(film.pictures) / FRAMES_PER_SECOND))
        film.save(out / "page.webp")
    for name in ("page.png", "page.webp"):
        console_for(None).print(f"{out / name}: {(out / name).stat().st_size / 1e6:.2f} MB", markup=False)


@contextmanager
def _page() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("Playwright is not installed", "pip install playwright") from None
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path)
        try:
            yield browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        finally:
            browser.close()


if __name__ == "__main__":
    main()
