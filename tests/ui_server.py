"""A real server for tests and benchmarks: `scanonce ui` or `serve` as a process of its own.

with Server(index_dir, home) as server:
    urlopen(server.url)
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]
_START_SECONDS = 600.0


class Server:
    """`scanonce ui` at a free port."""

    def __init__(
        self,
        index_dir: Path,
        home: Path,
        *,
        config: Path | None = None,
        token: str | None = None,
        command: Sequence[str] = ("ui", "--no-browser"),
    ) -> None:
        """
        Args:
            index_dir: the index to show.
            home: home directory of the process; its output is written there too.
            config: configuration file. Default: the repository's.
            token: access token. Default: none is needed.
            command: the command that serves.
        """
        self.log = home / "server.log"
        command = [sys.executable, "-m", "scanonce.ui.cli", *command, "--port", "0"]
        command += ["--index", str(index_dir), *(["--config", str(config)] if config else [])]
        command += ["--token", token] if token else []
        # the server's own options must win over the user's
        telemetry = {"STREAMLIT_BROWSER_GATHER_USAGE_STATS": "true"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **telemetry, "HOME": str(home), "PYTHONUNBUFFERED": "1"},
            )

    def __enter__(self) -> Self:
        """Wait until it has printed its address."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            printed = re.search(r" at (http://\S+)", self.log.read_text("utf-8"))
            if printed:
                self.url = printed[1]
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
        """End it as Ctrl-C does."""
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end within 120 s of Ctrl-C") from None
