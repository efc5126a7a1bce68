"""Takes the pictures of docs/ui: each page and state of the demo library, at three widths, light and dark.

scanonce demo demo
python -m benchmarks.screenshots --index demo/index
"""

import io
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browser import open_browser
from tests.ui_server import ROOT, Server

WIDTHS = {1280: 800, 800: 800, 420: 800}
"""Height by width in pixels."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
QUERY = "two red birds on a snowy field at night"
_COLOURS = 160
"""Of each picture: enough for the pages, and half the size."""


def _start(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("list", name="newest videos").get_by_role("link").first.wait_for()
    page.locator(".st-key-examples button").first.wait_for()


def _search(page: Page, url: str) -> None:
    page.goto(f"{url}?q={QUERY.replace(' ', '+')}")
    page.locator(".grid .card").first.wait_for()


def _nothing(page: Page, url: str) -> None:
    page.goto(f"{url}?q=interest+rates+and+regret")
    page.locator(".grid .card").first.wait_for()


def _moment(page: Page, url: str) -> None:
    _search(page, url)
    page.locator(".grid .card a.open").first.click()
    page.wait_for_function("document.title.includes(' - ') && !location.pathname.endsWith('/')")
    video = page.locator("video")
    video.wait_for()
    page.wait_for_function(
        "video => video.readyState >= 2 && !video.seeking", arg=video.element_handle()
    )


def _tray(page: Page, url: str) -> None:
    _search(page, url)
    for number in range(3):
        box = page.locator(".grid .card .pick input").nth(number)
        if not box.is_checked():
            box.check()
    page.locator(".tray summary").click()
    page.locator(".tray .row").nth(2).wait_for()


def _keys(page: Page, url: str) -> None:
    _search(page, url)
    page.locator("body").press("?")
    page.locator("dialog[open]").wait_for()


def _page(name: str, text: str) -> Callable[[Page, str], None]:
    def draw(page: Page, url: str) -> None:
        page.goto(url + name)
        page.get_by_text(text).first.wait_for()

    return draw


STATES: Mapping[str, Callable[[Page, str], None]] = {
    "start": _start,
    "search": _search,
    "nothing": _nothing,
    "moment": _moment,
    "library": _page("library", "Add folder"),
    "saved": _page("saved", "No search is saved yet"),
    "duplicates": _page("duplicates", "Compare all videos"),
    "status": _page("status", "Encoder"),
    "keys": _keys,
    "tray": _tray,  # last: what is picked stays picked
}


_HIDE_FOLDER = """folder => {
  const visit = (node) => {
    if (node.nodeType === Node.TEXT_NODE && node.data.includes(folder)) {
      node.data = node.data.replaceAll(folder, "/home/me/demo");
    }
    if (node.shadowRoot) visit(node.shadowRoot);
    node.childNodes.forEach(visit);
  };
  visit(document.body);
}"""
"""The pictures are of no machine."""


def take(browser: Browser, url: str, out: Path, only: str | None, folder: Path) -> int:
    """Take all pictures, or those of one state, without the name of the demo's folder; return their size in bytes."""
    size = 0
    for state, draw in STATES.items():
        if only not in (None, state):
            continue
        for scheme in SCHEMES:
            for width, height in WIDTHS.items():
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                context.set_default_timeout(120_000)
                page = context.new_page()
                draw(page, url)
                page.locator("[data-test-script-state=notRunning]").wait_for(state="attached")
                page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
                page.wait_for_timeout(700)  # fades and thumbnails
                page.evaluate(_HIDE_FOLDER, str(folder))
                image = Image.open(io.BytesIO(page.screenshot()))
                path = out / f"{state}-{width}-{scheme}.png"
                image.convert("RGB").quantize(_COLOURS).save(path, optimize=True)
                size += path.stat().st_size
                context.close()
    return size


def main(
    index: Annotated[Path, typer.Option(help="Index of the demo library.")] = ROOT / "demo/index",
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = ROOT / "docs/ui",
    only: Annotated[str | None, typer.Option(help="Name of one state.")] = None,
) -> None:
    """Take the pictures."""
    selects = index / "selects.json"
    selects.unlink(missing_ok=True)
    home = Path(tempfile.mkdtemp(prefix="scanonce-screenshots-"))
    try:
        with Server(index, home) as server, open_browser(home) as browser:
            size = take(browser, server.url, out, only, index.resolve().parent)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        selects.unlink(missing_ok=True)
    print(f"{size / 1e6:.2f} MB in {out}")


if __name__ == "__main__":
    typer.run(main)
