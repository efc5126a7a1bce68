"""Why a moment is in an answer, for people and programs. Pure functions."""

from collections.abc import Sequence
from typing import Any

from scanonce.storage.records import Reason


def reason_json(reason: Reason) -> dict[str, Any]:
    """Return why a moment is in an answer, in the documented schema (docs/cli.md)."""
    words = {"text": reason.text, "marks": [list(mark) for mark in reason.marks]}
    known = {"channel": reason.channel, "value": round(reason.value, 4)}
    return known | (words if reason.text else {})


def reason_pieces(reason: Reason, width: int = 70) -> list[tuple[str, bool]]:
    """Return the words of a reason in pieces, each with whether the query has it too.

    >>> reason_pieces(Reason("said", 0.9, "people who met", ((11, 14),)))
    [('people who ', False), ('met', True)]

    Args:
        reason: the reason.
        width: characters of the text that are shown, around the first word that the query has.
    """
    begin, end = _shown_part(reason, width)
    pieces, at = [("…" if begin else "", False)], begin
    for first, last in reason.marks:
        if at <= first < last <= end:
            pieces += [(reason.text[at:first], False), (reason.text[first:last], True)]
            at = last
    pieces += [(reason.text[at:end], False), ("…" if end < len(reason.text) else "", False)]
    return [piece for piece in pieces if piece[0]]


def reason_text(reason: Reason, mark: tuple[str, str] = ("", ""), width: int = 70) -> str:
    """Return why a moment is in an answer, in a line.

    >>> reason_text(Reason("seen", 0.714))
    'seen .71'
    >>> reason_text(Reason("said", 0.9, "people who met on Discord", ((11, 14), (18, 25))), ("*", "*"))
    'said "people who *met* on *Discord*"'

    Args:
        reason: the reason.
        mark: put before and after words that the query has too.
        width: see `reason_pieces`.
    """
    if not reason.text:
        return f"{reason.channel} {reason.value:.2f}".replace(" 0.", " .")
    pieces = reason_pieces(reason, width)
    shown = "".join(f"{mark[0]}{text}{mark[1]}" if marked else text for text, marked in pieces)
    return f'{reason.channel} "{shown}"'


def _shown_part(reason: Reason, width: int) -> tuple[int, int]:
    """Return the part of a text of at most ``width`` characters with its first mark in the first third."""
    if len(reason.text) <= width:
        return 0, len(reason.text)
    first = reason.marks[0][0] if reason.marks else 0
    begin = min(max(0, first - width // 3), len(reason.text) - width)
    return begin, begin + width


def reasons_text(reasons: Sequence[Reason]) -> str:
    """Return why a moment is in an answer, in one line without markup."""
    return " · ".join(reason_text(each) for each in reasons)
