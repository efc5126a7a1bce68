"""Files that people hand us, row by row: JSON Lines, CSV, JSON. An error names file and line, and what is expected.

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
def reading(path: Path, place: str, expected: str) -> Iterator[None]:
    """Turns what is wrong with the values of one place, and escapes the block, into a ConfigError that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{path}, {place}: {what}. Expected is {expected}") from error


def text_of(row: Row, *names: str) -> str:
    """The first of some fields that is there, as text; not empty."""
    name = next((name for name in names if name in row), None)
    if name is None:
        raise KeyError(" or ".join(names))
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, not empty; got {value!r}")
    return value.strip()


def seconds_of(value: object) -> float:
    """A finite number of seconds, given as a number or as text."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"a number of seconds is needed, got {value!r}")
    return seconds


def span_of(start: object, end: object) -> Span:
    """A span that is not empty."""
    span = Span(seconds_of(start), seconds_of(end))
    if not span.duration_seconds:
        raise ValueError(f"a span must end after it begins, got {start} to {end}")
    return span


# ---------------------------------------------------------------- files


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not empty."""
    # what a spreadsheet saves may begin with a byte order mark
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip()


def jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Number and object of each line that is not empty; raises ConfigError where one is no JSON object."""
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
    """Number and fields of each line below the one of names; raises ConfigError where their numbers differ."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: not as many fields as the "
                        f"{len(reader.fieldnames or ())} names in the first line; "
                        "put a sentence that has commas into double quotes"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise ConfigError(f"{path}, line {reader.line_num}: no CSV ({error})") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises ConfigError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from error


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds, which must be an object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a JSON object {{...}} is needed, got {shortened(content)}")
    return content


def shortened(value: object) -> str:
    """The beginning of a value, in one line."""
    return re.sub(r"\s+", " ", str(value))[:60]
