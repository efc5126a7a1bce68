"""A running `scanonce serve` or `scanonce ui` answers the searches of the command line, whose own models take seconds.

    with answering(service, config, print):           # the server
        ...
    answer = ask(root, config, {"text": "a red car"})   # the command line; None if no server runs

They talk through the socket ``serve.sock`` of the index directory, which belongs to its user alone and is open to no
other. One line of JSON is asked and one answered. Nothing that is asked names a file. A server with other settings than
those of the command line does not answer.

No heavy imports: the command line waits for this file.
"""

import contextlib
import hashlib
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingMixIn
from typing import TYPE_CHECKING, Any

from scanonce.storage.errors import QueryError, ScanonceError
from scanonce.storage.files import is_private
from scanonce.storage.records import Moment, Reason, Span
from scanonce.ui.config_file import config_values

if TYPE_CHECKING:
    from scanonce.search.result import Coverage, SearchResult
    from scanonce.ui.service import Service

VERSION = 1
"""Version of the messages; a server of a different version does not answer."""

_SOCKET = "serve.sock"
_MOST_ASKED, _MOST_ANSWERED = 1 << 20, 64 << 20
_CONNECT_SECONDS, _ANSWER_SECONDS = 1.0, 120.0
_LONGEST_PATH = 100  # of a socket; 104 to 108 by system


@dataclass(frozen=True, slots=True)
class Remote:
    """The answer of a server to a search."""

    result: "SearchResult"
    covered: "Coverage | None"
    inexact_times: bool
    """Whether the index may have inexact times; see `ui.views.INEXACT_TIMES`."""


# ---------------------------------------------------------------- the command line


def ask(root: Path, settings: str, asked: Mapping[str, Any]) -> Remote | None:
    """Have a search answered by the server of an index; None if there is none that answers for these settings.

    Args:
        root: the index directory, absolute.
        settings: `settings_digest` of this program.
        asked: ``text``, ``top`` and ``filter`` (`search.filters.filter_json`).

    Raises:
        QueryError: the query or the filter cannot be read.
        ScanonceError: the search failed.
    """
    answer = _exchange(root, {"version": VERSION, "settings": settings, **asked})
    if answer is None or answer.get("version") != VERSION or "other" in answer:
        return None
    if "error" in answer:
        raise (QueryError if answer["is_query"] else ScanonceError)(*answer["error"])
    return _remote(answer)


def _exchange(root: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the server of an index answers; None if none runs."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        found = (root / _SOCKET).lstat()
        if not stat.S_ISSOCK(found.st_mode) or not is_private(found):
            return None
        connection.settimeout(_CONNECT_SECONDS)
        with _short(root) as folder:
            connection.connect(f"{folder}/{_SOCKET}")
        connection.settimeout(_ANSWER_SECONDS)
        connection.sendall(json.dumps(asked).encode() + b"\n")
        with connection.makefile("rb") as file:
            answer = json.loads(file.readline(_MOST_ANSWERED))
        return answer if isinstance(answer, dict) else None
    return None


def settings_digest(values: Mapping[str, Any]) -> str:
    """Return what differs if other settings hold.

    Args:
        values: the configuration (`ui.config_file.config_values`).
    """
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------- the server


@contextmanager
def answering(
    service: "Service", config: Path | None, report: Callable[[str], object]
) -> Iterator[None]:
    """Answer the command line until the block ends, if this system has such sockets and the index a place for one."""
    root = service.library.root
    if not hasattr(socket, "AF_UNIX") or not root.is_dir():
        yield
        return
    try:
        server = _listening(root, _handler(service, settings_digest(config_values(config))))
    except OSError as error:
        report(
            f"The command line starts its own models: {root / _SOCKET}: {error.strerror or error}"
        )
        yield
        return
    thread = threading.Thread(target=server.serve_forever, name="command line", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        with contextlib.suppress(OSError):
            (root / _SOCKET).unlink()


def _listening(root: Path, handler: type[StreamRequestHandler]) -> Any:
    from socketserver import UnixStreamServer

    class Server(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True
        request_queue_size = 32

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: the caller went away."""

    path = root / _SOCKET
    if _answers(root):
        raise OSError(0, "another server answers there")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(0, "something else has this name")
        path.unlink()  # of a server that was killed
    before = os.umask(0o177)  # nobody else may connect, from the first moment on
    try:
        with _short(root) as folder:
            return Server(f"{folder}/{_SOCKET}", handler)
    finally:
        os.umask(before)


def _handler(service: "Service", settings: str) -> type[StreamRequestHandler]:
    class Handler(StreamRequestHandler):
        timeout = _ANSWER_SECONDS

        def handle(self) -> None:
            """Answer one search."""
            asked = json.loads(self.rfile.readline(_MOST_ASKED))
            answer: dict[str, Any] = {"version": VERSION}
            if asked.get("version") != VERSION or asked.get("settings") != settings:
                answer["other"] = True
            else:
                answer |= _answer(service, asked)
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    return Handler


def _answer(service: "Service", asked: Mapping[str, Any]) -> dict[str, Any]:
    from scanonce.search.filters import filter_of
    from scanonce.ui.reports import unexpected

    try:
        only = filter_of(json.dumps(asked["filter"]))
        answered = service.search(asked["text"], top=asked["top"], only=only)
        manifest = service.library.engine.manifest
    except ScanonceError as error:
        return {
            "error": [str(each) for each in error.args],
            "is_query": isinstance(error, QueryError),
        }
    except Exception as error:
        return {"error": [unexpected(error)], "is_query": False}
    covered = answered.covered
    return {
        **_result_values(answered.result),
        "covered": asdict(covered) if covered else None,
        "inexact_times": not manifest.exact_times,
    }


# ---------------------------------------------------------------- values


def _result_values(result: "SearchResult") -> dict[str, Any]:
    moments = [
        {**asdict(moment), "path": str(moment.path), "reasons": [asdict(r) for r in moment.reasons]}
        for moment in result.moments
    ]
    return {
        "query": result.query,
        "moments": moments,
        "timings_ms": dict(result.timings_ms),
        "num_videos": result.num_videos,
        "notes": list(result.notes),
        "num_searchable": result.num_searchable,
    }


def _remote(answer: Mapping[str, Any]) -> Remote:
    from scanonce.search.result import Coverage, SearchResult

    result = SearchResult(
        answer["query"],
        tuple(map(_moment, answer["moments"])),
        answer["timings_ms"],
        answer["num_videos"],
        tuple(answer["notes"]),
        answer["num_searchable"],
    )
    covered = None if answer["covered"] is None else Coverage(**answer["covered"])
    return Remote(result, covered, answer["inexact_times"])


def _moment(values: Mapping[str, Any]) -> Moment:
    reasons = tuple(
        Reason(
            each["channel"],
            each["value"],
            each["text"],
            tuple((first, last) for first, last in each["marks"]),
        )
        for each in values["reasons"]
    )
    span, path = Span(**values["span"]), Path(values["path"])
    return Moment(**{**values, "span": span, "path": path, "reasons": reasons})


# ---------------------------------------------------------------- sockets


def _answers(root: Path) -> bool:
    """Whether a server listens at the socket of an index."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        with _short(root) as folder:
            connection.connect(f"{folder}/{_SOCKET}")
        return True
    return False


@contextmanager
def _short(root: Path) -> Iterator[str]:
    """Give a path of a folder that is short enough for the address of a socket.

    Raises:
        OSError: the system has none.
    """
    if len(os.fsencode(root)) + len(_SOCKET) < _LONGEST_PATH:
        yield str(root)
        return
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"  # Linux
    finally:
        os.close(descriptor)
