"""Lines about what an encoder cannot read in a query: single words, a whole language, the end of a long text.

>>> unread_lines(Reading(unread=("zebra",), num_words=2, num_read=2))
['the encoder of this index hardly knows “zebra”: try another word']
"""

from collections.abc import Collection

from scanonce.models.encoders.reading import Reading

_MOST = 0.5  # of the words unread: it is the language that the encoder does not know, not a word
_FEW = 3
"""Unread words from which on a text of the right script is taken to be in another language."""

_ADVICE = "ask in a language of its training, or index with an encoder of yours (scanonce encoders --language ...)"


def unread_lines(reading: Reading, known: Collection[str] = ()) -> list[str]:
    """Return the lines for a query.

    Args:
        reading: how the encoder reads it.
        known: words, case-folded, of which another line speaks.
    """
    unread = [word for word in reading.unread if word.casefold() not in known]
    lines = [_unread_line(unread, reading)] if unread else []
    if reading.is_cut and reading.num_read:
        lines.append(
            f"only the first {reading.num_read} words are read: the encoder takes no longer sentence"
        )
    elif reading.is_cut:
        lines.append("only the beginning is read: the encoder takes no longer sentence")
    return lines


def _unread_line(unread: list[str], reading: Reading) -> str:
    is_most = len(unread) >= _MOST * reading.num_words
    if is_most and reading.scripts:
        return f"the encoder of this index hardly reads {' or '.join(reading.scripts)}: {_ADVICE}"
    if is_most and len(unread) >= _FEW:
        num_known = reading.num_words - len(unread)
        return f"the encoder of this index knows {num_known} of these {reading.num_words} words: {_ADVICE}"
    words = ", ".join(f"“{word}”" for word in unread)
    other = "another word" if len(unread) == 1 else "other words"
    return f"the encoder of this index hardly knows {words}: try {other}"
