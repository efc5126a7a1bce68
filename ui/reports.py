"""Errors that no part of the program expected: a sentence for the person, and a report for the developers.

The report has the traceback, versions and the command, but no query, label or token of the command. It is a file of its
own in the folder for temporary files, which only its owner reads.
"""

import logging
import platform
import re
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from scanonce.storage.errors import ScanonceError
from scanonce.ui.console import note
from scanonce.ui.safe_text import visible

_PACKAGES = (
    "scanonce",
    "av",
    "faiss-cpu",
    "numpy",
    "sqlalchemy",
    "streamlit",
    "torch",
    "transformers",
)

_saved: dict[str, Path] = {}
"""Files by the traceback in them: an error that comes back, as in a page, is saved once."""
_saving = threading.Lock()


def sentence(error: Exception) -> str:
    """Return what a person is told about an error; one that nobody expected is saved in a report."""
    return str(error) if isinstance(error, ScanonceError) else unexpected(error)


def tell(error: BaseException, *, debug: bool = False) -> None:
    """Print a sentence about an error that nobody expected, and its traceback if asked for."""
    if debug:
        show_traceback(error)
    note(unexpected(error))


def show_traceback(error: BaseException) -> None:
    """Print the traceback of an error on standard error."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        print(visible(line), file=sys.stderr)


def tell_of_threads_and_logs(*, debug: bool) -> None:
    """Have errors that end a thread, and records of logs, printed in the same way."""

    def on_error(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and ended.exc_type is not SystemExit:
            tell(ended.exc_value, debug=debug)

    threading.excepthook = on_error
    logging.basicConfig(level=logging.WARNING, handlers=[_Teller(debug)])


class _Teller(logging.Handler):
    """Prints log records in a line each."""

    def __init__(self, debug: bool) -> None:
        super().__init__()
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(record.getMessage()), file=sys.stderr, flush=True)
        if record.exc_info and record.exc_info[1] is not None:
            tell(record.exc_info[1], debug=self._debug)


def unexpected(error: BaseException) -> str:
    """Save a report of an error and return one sentence about it, with the place of the report."""
    return f"{_cause(error)} {_place(error)}"


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        path = "" if error.filename is None else f"{error.filename}: "
        return f"{path}{error.strerror}: make room or check the permissions, then run the same command again;"
    if isinstance(error, MemoryError):
        return "the memory of this machine is used up: end other programs, then run the same command again;"
    return f"stopped by an error that was not foreseen, {visible(_first_line(error))};"


def _first_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[0]


def _place(error: BaseException) -> str:
    try:
        return f"a report for the developers is in {_save(error)}"
    except OSError as problem:
        return f"no report could be saved ({problem.strerror or problem}), --debug shows it"


def folder() -> Path:
    """Return the folder of the reports."""
    return Path(tempfile.gettempdir())


def _save(error: BaseException) -> Path:
    trace = "".join(traceback.format_exception(error))
    with _saving:
        if trace not in _saved:
            text = f"{_command()}\n{_versions()}\n\n{_without_texts(trace)}"
            with tempfile.NamedTemporaryFile(
                "wb", dir=folder(), prefix="scanonce-report-", suffix=".txt", delete=False
            ) as file:
                file.write(text.encode("utf-8", "backslashreplace"))
            _saved[trace] = Path(file.name)
        return _saved[trace]


def _versions() -> str:
    import importlib.metadata  # slow to import, and rarely needed

    found = [f"Python {platform.python_version()} on {platform.platform()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _command() -> str:
    """Return the command with an ellipsis for each value that is no path: queries and tokens are private."""
    return " ".join(["scanonce", *(_named(word) or "…" for word in _words())])


def _words() -> list[str]:
    return [part for word in sys.argv[1:] for part in _split(word)]


def _split(word: str) -> list[str]:
    name, _, value = word.partition("=")
    return [name, value] if word.startswith("--") and value else [word]


def _named(word: str) -> str | None:
    """Return a part of the command if it is no private text."""
    is_name = (
        re.fullmatch("--?[a-z-]+", word)
        or word in sys.argv[1:2]
        or sys.argv[1:3] == ["train", word]
    )
    return word if is_name or _is_path(word) else None


def _is_path(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):
        return False


def _without_texts(trace: str) -> str:
    """Return a traceback without the private texts of the command."""
    for word in _words():
        if len(word) > 2 and _named(word) is None:
            trace = trace.replace(word, "…")
    return trace
