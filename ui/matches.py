"""Matches of saved searches in new videos, reported while `scanonce watch` runs."""

import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scanonce.indexer.settings import WatchSettings
from scanonce.storage.errors import ConfigError, ScanonceError
from scanonce.ui.deliveries import Deliveries, Send, run_command
from scanonce.ui.safe_text import json_line
from scanonce.ui.views import moment_json
from scanonce.ui.webhook import Webhook

if TYPE_CHECKING:
    from scanonce.library import Library
    from scanonce.search.standing import News

SECRET_VARIABLE = "SCANONCE_WEBHOOK_SECRET"
"""Environment variable with the key of the webhook."""

_CLOSE_SECONDS = 10.0


def places(settings: WatchSettings, command: str | None) -> list[Send]:
    """Return the places that hear of matches: a command, a webhook, both or neither.

    Args:
        settings: the ``[watch]`` section.
        command: the command line of ``--exec``; it comes before that of the settings.

    Raises:
        ConfigError: the command line cannot be read, there is no such program, or the address is no webhook.
    """
    sends: list[Send] = []
    if words := _words(settings, command):
        if shutil.which(words[0]) is None:
            raise ConfigError(f"there is no program {words[0]}: give its path, or one of $PATH")
        sends.append(run_command(words))
    if settings.webhook:
        secret = os.environ.get(SECRET_VARIABLE) or settings.webhook_secret
        sends.append(Webhook(settings.webhook, secret, settings.webhook_private).send)
    return sends


def _words(settings: WatchSettings, command: str | None) -> Sequence[str]:
    if command is None:
        return settings.command
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--exec cannot be read ({error}): {command}") from error
    if not words:
        raise ConfigError("--exec needs a program, such as --exec 'notify-send Scanonce'")
    return words


def news_json(library: "Library", news: "News") -> dict[str, Any]:
    """Return a match in the documented schema (docs/cli.md)."""
    return {
        "event": "saved_search_matched",
        "index": str(library.root),
        "name": news.saved.name,
        "query": news.saved.query,
        "moments": [moment_json(moment) for moment in news.moments],
    }


@contextmanager
def reporting_matches(
    library: "Library", sends: Sequence[Send], report: Callable[[str], object]
) -> Iterator[Callable[[], object]]:
    """Give what asks the saved searches of new videos, in a thread; it returns at once.

    Without a place nothing is asked.

    Args:
        library: the index that is watched, which need not exist yet.
        sends: see `places`.
        report: called with a line for people.
    """
    if not sends:
        yield lambda: None
        return
    deliveries = Deliveries(sends, report=report)
    asking = _Asking(library, deliveries, report)
    try:
        yield asking.look
    finally:
        asking.close()
        deliveries.close()


class _Asking:
    """The thread that asks the saved searches; calls while it asks are one call."""

    def __init__(
        self, library: "Library", deliveries: Deliveries, report: Callable[[str], object]
    ) -> None:
        from scanonce.search.standing import Standing

        self._library, self._deliveries, self._report = library, deliveries, report
        self._standing = Standing(library.saved, lambda: library.engine)
        self._told: dict[str, str] = {}
        self._wanted, self._is_ending = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="saved searches", daemon=True)
        self._thread.start()

    def look(self) -> None:
        self._wanted.set()

    def close(self) -> None:
        """Ask a last time."""
        self._is_ending = True
        self._wanted.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wanted.wait()
            self._wanted.clear()
            is_last = self._is_ending
            self._tell()

    def _tell(self) -> None:
        try:
            found = self._standing.ask()
        except ScanonceError as error:  # asked again with the next video
            self._report(f"the saved searches cannot be asked: {error}")
            return
        for name, problem in self._standing.problems.items():
            if self._told.get(name) != problem:
                self._report(f"the saved search {name} cannot be asked: {problem}")
        self._told = dict(self._standing.problems)
        for news in found:
            num = len(news.moments)
            self._report(f"{news.saved.name}: {num} new match{'' if num == 1 else 'es'}")
            self._deliveries.put(json_line(news_json(self._library, news)).encode())
