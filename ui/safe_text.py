"""Names of files and other text from outside, made safe to send and to show.

>>> visible("a\\x1b[2J\\nb.mp4"), json_line({"path": "\\x9b2J"})
('a\\\\x1b[2J\\\\nb.mp4', '{"path": "\\\\u009b2J"}')
"""

import json
import unicodedata
from pathlib import Path

_JOINERS = frozenset("\u200c\u200d")
"""Invisible letters that words of Persian and India, and emoji of several people, are written with."""


def encodable(text: str) -> str:
    """Return the text with "?" for whatever has no UTF-8: names of files may be any bytes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """Return the encodable text with a space for each control character."""
    return "".join(letter if letter.isprintable() else " " for letter in encodable(text))


def one_line(text: str) -> str:
    """Return the printable text with single spaces and no line break."""
    return " ".join(printable(text).split())


def shown_name(path: Path) -> str:
    """Return the name of a file as the pages show it."""
    return encodable(path.name)


# ---------------------------------------------------------------- terminals


def visible(text: object) -> str:
    r"""Return a text in one line, with an escape such as ``\x1b`` for each letter that a terminal would obey.

    These are control characters, line breaks, marks that turn the direction of writing, and broken bytes.
    """
    return "".join(each if _is_harmless(each) else _escape(each) for each in str(text))


def json_line(value: object, encoding: str = "utf-8") -> str:
    """Return a value as JSON in a line of harmless letters; a program that reads it gets the same value.

    Args:
        value: lists, dictionaries and plain values.
        encoding: of the file it is written to; letters that it lacks are escaped too.
    """
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable() and _has(encoding, text):
        return text
    return "".join(
        each if _is_harmless(each) and _has(encoding, each) else json.dumps(each)[1:-1]
        for each in text
    )


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _has(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
