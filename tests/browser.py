"""A real browser and a real server, for tests and figures of the pages.

    with Server(index_dir, home) as server, open_browser(home) as browser:
        page = browser.new_page()
        page.goto(server.url)

The browser is the system's chromium, driven by Playwright; nothing is downloaded.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    sync_playwright,
)

ROOT = Path(__file__).parents[1]

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
_START_SECONDS = 90.0
# opened at /moment, Streamlit's page first looks whether the application lives there
_LOOKING_FOR_ITS_ROOT = re.compile(r"/(library|moment|status)/_stcore/(health|host-config)$")


def find_chromium() -> str | None:
    """The browser of this machine; None where there is none."""
    given = os.environ.get(VARIABLE)
    if given:
        return shutil.which(given)
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_browser(home: Path) -> Iterator[Browser]:
    """A chromium without a window, which keeps its own things below ``home``."""
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


class Server:
    """`scanonce ui` as a process of its own, at a free port."""

    def __init__(self, index_dir: Path, home: Path, *, config: Path | None = None) -> None:
        """
        Args:
            index_dir: what is shown.
            home: home directory of the process; its output lies there too.
            config: configuration file. Default: the repository's.
        """
        self.log = home / "server.log"
        command = [sys.executable, "-m", "scanonce.ui.cli", "ui", "--no-browser", "--port", "0"]
        command += ["--index", str(index_dir), *(["--config", str(config)] if config else [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(home), "PYTHONUNBUFFERED": "1"},
            )

    def __enter__(self) -> Self:
        """Waits until it has told its address."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            told = re.search(r" at (http://\S+)", self.log.read_text("utf-8"))
            if told:
                self.url = told[1]
                return self
            time.sleep(0.05)
        self._end()
        raise AssertionError(f"the server did not start:\n{self.log.read_text('utf-8')}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it as Ctrl-C does."""
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end within 20 s of Ctrl-C") from None


@dataclass  # Playwright keeps things of its own in it
class Watched:
    """What a page did that it should not: see :meth:`problems`."""

    host: str
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self, context: BrowserContext) -> Page:
        """A page that is watched from its first request on."""
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
        if message.type == "error" and not _LOOKING_FOR_ITS_ROOT.search(url):
            self.errors.append(f"{message.text} ({url})")

    def problems(self) -> list[str]:
        """Errors in the console, dialogs, and requests to other hosts."""
        elsewhere = [
            f"asked for {url}"
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != self.host
        ]
        return [*self.errors, *self.dialogs, *elsewhere]
