"""A real browser for tests and benchmarks of the pages.

    with Server(index_dir, home) as server, open_browser(home) as browser:
        page = browser.new_page()
        page.goto(server.url)

The browser is the system's Chromium, driven by Playwright; nothing is downloaded.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    sync_playwright,
)

VARIABLE = "SCANONCE_CHROMIUM"
"""Environment variable with the path of the browser."""

HOW_TO_INSTALL = f"no chromium: `apt-get install chromium`, or name one in {VARIABLE}"

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# opened at /moment, Streamlit's page first tries whether the application is served from there
_ROOT_REQUESTS = re.compile(
    r"/(library|moment|saved|duplicates|status)/_stcore/(health|host-config)$"
)


def find_chromium() -> str | None:
    """Return the path of this machine's browser; None if there is none."""
    given = os.environ.get(VARIABLE)
    if given:
        return shutil.which(given)
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_browser(home: Path) -> Iterator[Browser]:
    """Open a Chromium without a window, with ``home`` as its home directory."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=list(_ARGUMENTS),
            env={**os.environ, "HOME": str(home)},
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass  # without slots: Playwright stores attributes of its own in it
class Watched:
    """Records errors, dialogs and requests of a page, see :meth:`problems`."""

    host: str
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self, context: BrowserContext) -> Page:
        """Return a new page that is watched from its first request on."""
        page = context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("dialog", self._dialog)
        return page

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        if message.type == "error" and not _ROOT_REQUESTS.search(url):
            self.errors.append(f"{message.text} ({url})")

    def problems(self) -> list[str]:
        """Return errors in the console, dialogs, and requests to other hosts."""
        elsewhere = [
            f"asked for {url}"
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != self.host
        ]
        return [*self.errors, *self.dialogs, *elsewhere]
