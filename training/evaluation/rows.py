"""Readers of users' files, row by row: JSON Lines, CSV, JSON. Errors name the file, the line and the expected values.

for line, row in jsonl_rows(path):
    with reading(path, f"line {line}", '{"video": "...", "start": 1.5}'):
        video, start = text_of(row, "video"), seconds_of(row["start"])
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span

Row: TypeAlias = Mapping[str, Any]
"""Values of a line by the names of their fields."""

# ---------------------------------------------------------------- values


@contextmanager
def reading(path: Path, position: str, expected: str) -> Iterator[None]:
    """Turn an error about values inside the block into a ConfigError with their position."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{path}, {position}: {what}. Expected is {expected}") from error


def text_of(row: Row, *names: str) -> str:
    """Return the first existing field of these names, as text that is not empty."""
    name = next((name for name in names if name in row), None)
    if name is None:
        raise KeyError(" or ".join(names))
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, not empty; got {value!r}")
    return value.strip()


def seconds_of(value: object) -> float:
    """Return a finite number of seconds, given as a number or as text."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"a number of seconds is needed, got {value!r}")
    return seconds


def span_of(start: object, end: object) -> Span:
    """Return a span that is not empty."""
    span = Span(seconds_of(start), seconds_of(end))
    if not span.duration_seconds:
        raise ValueError(f"a span must end after it begins, got {start} to {end}")
    return span


def optional_span(row: Row) -> Span | None:
    """Return the span of ``start_seconds`` and ``end_seconds``; None if both are missing or empty."""
    fields = (row.get("start_seconds"), row.get("end_seconds"))
    times = [value for value in fields if value not in (None, "")]  # "": an empty field of a CSV
    if len(times) == 1:
        raise ValueError("start_seconds and end_seconds come together or not at all")
    return span_of(*times) if times else None


def plain_text(text: str) -> str:
    """Return a text without differences of case, white space and a full stop, for comparisons."""
    return " ".join(text.casefold().split()).rstrip(".")


# ---------------------------------------------------------------- files


@contextmanager
def opening(path: Path, content: str = "") -> Iterator[None]:
    """Turn an error of opening or decoding a file inside the block into a ConfigError.

    Args:
        path: file that is read.
        content: what the file has, such as "the predictions", for the message.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{content} {path} cannot be read ({error.strerror or error}): check the name".lstrip()
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not empty."""
    # files of spreadsheets may begin with a byte order mark
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip()


def jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield number and object of each line that is not empty; raises ConfigError for lines without a JSON object."""
    for number, line in text_lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: no JSON ({error})") from error
        if not isinstance(row, dict):
            raise ConfigError(
                f"{path}, line {number}: a JSON object {{...}} is needed, got {shortened(row)}"
            )
        yield number, row


def csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield number and fields of each line below the names; raises ConfigError if their numbers differ."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: not as many fields as the "
                        f"{len(reader.fieldnames or ())} names in the first line; "
                        "put texts that contain commas into double quotes"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise ConfigError(f"{path}, line {reader.line_num}: no CSV ({error})") from error


def table_rows(path: Path, content: str) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a user's own CSV or JSON Lines file; ``content`` names it in the error for other files."""
    reader = {".csv": csv_rows, ".jsonl": jsonl_rows}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{path}: own {content} come as .csv or .jsonl; name the benchmark (--benchmark) of other files"
        )
    yield from reader(path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises ConfigError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from error


def json_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, which must be an object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a JSON object {{...}} is needed, got {shortened(content)}")
    return content


def shortened(value: object) -> str:
    """The beginning of a value, in one line."""
    return re.sub(r"\s+", " ", str(value))[:60]
