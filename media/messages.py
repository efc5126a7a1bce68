"""Messages between a guarded child and its parent: bounded in length, and no value is believed without a check.

A message is a JSON header, ``{"kind": ..., "values": {...}}``, and for some kinds raw bytes after it. Nothing is ever
unpickled, so a decoder that a file has taken over cannot run code in the parent.
"""

import json
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar, get_type_hints

MAX_HEADER_BYTES = 1 << 20
MAX_TEXT_CHARS = 500
MAX_NAME_CHARS = 32  # names of codecs and containers
MAX_SIDE = 1 << 26  # FFmpeg allows 2^21 pixels a side, and their shape may stretch them
MAX_NUMBER = 1e15  # seconds, or frames a second: as microseconds it still fits in 63 bits

T = TypeVar("T")


class ParentGone(Exception):
    """The parent has closed its end of the connection."""


def send(
    connection: Connection, kind: str, values: dict[str, Any], *data: bytes | memoryview
) -> None:
    """Send one message: a header, and raw bytes if there are any.

    Raises:
        ParentGone: nobody is left to receive it.
    """
    try:
        connection.send_bytes(json.dumps({"kind": kind, "values": values}).encode())
        for each in data:
            connection.send_bytes(each)
    except OSError as error:  # distinguished from the errors that a decoder may raise
        raise ParentGone from error


def receive_header(connection: Connection) -> tuple[str, dict[str, Any]]:
    """``(kind, values)`` of the next message; any exception if it has another form, EOFError if the child is gone."""
    header = json.loads(receive_bytes(connection, MAX_HEADER_BYTES))
    kind, values = header["kind"], header["values"]
    if not isinstance(kind, str) or not isinstance(values, dict):
        raise ValueError("a header is a kind and its values")
    return kind, values


def receive_bytes(connection: Connection, max_bytes: int) -> bytes:
    """The next part of a message; ValueError, and nothing of it is read, if it is longer."""
    try:
        return connection.recv_bytes(max_bytes)
    except OSError as error:
        if error.args == ("bad message length",):
            raise ValueError(f"a message of more than {max_bytes} bytes") from error
        raise


def number(value: object, highest: float) -> float:
    """``value`` if it is a number from 0 to ``highest``; else ValueError, also for NaN and booleans."""
    if type(value) not in (int, float) or not 0 <= value <= highest:  # type: ignore[operator]
        raise ValueError(f"{value!r} is no number from 0 to {highest}")
    return float(value)  # type: ignore[arg-type]


def integer(value: object, highest: int) -> int:
    """``value`` if it is an integer from 1 to ``highest``; else ValueError."""
    if type(value) is not int or not 0 < value <= highest:
        raise ValueError(f"{value!r} is no integer from 1 to {highest}")
    return value


def truth(value: object) -> bool:
    """``value`` if it is true or false; else ValueError."""
    if type(value) is not bool:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def text(value: object) -> str:
    """``value`` as one printable line of at most `MAX_TEXT_CHARS`; ValueError if it is no text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return printable(value[:MAX_TEXT_CHARS])


def printable(value: str, *, lines: bool = False) -> str:
    """``value`` with spaces for what would move a cursor or turn the direction of writing."""
    return "".join(
        each if each.isprintable() or (lines and each == "\n") else " " for each in value
    )


def record(kind: type[T], values: dict[str, Any]) -> T:
    """A dataclass of plain values from those of a header; an error if one is missing, foreign or wrong."""
    checks: dict[Any, Callable[[object], object]] = {
        float: lambda value: number(value, MAX_NUMBER),
        int: lambda value: integer(value, MAX_SIDE),
        str: name,
        bool: truth,
        str | None: lambda value: None if value is None else name(value),
    }
    types = get_type_hints(kind)
    return kind(**{field: checks[types[field]](value) for field, value in values.items()})


def name(value: object) -> str:
    """``value`` as at most `MAX_NAME_CHARS` printable characters; ValueError if it is no text."""
    return text(value)[:MAX_NAME_CHARS]
