"""Names of files and other text from outside, made safe to send and to show."""

from pathlib import Path


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
