"""Names of labels: which are allowed, and which two are the same.

>>> normal_label("  Summer   2024 "), folded("STRASSE") == folded("straße")
('Summer 2024', True)
"""

import unicodedata

from scanonce.storage.errors import QueryError

MAX_LABEL = 100
"""Characters of a label."""

_REFUSED = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line break"}
_REFUSED["Zp"] = _REFUSED["Zl"]

_JOINERS = "\u200c\u200d"  # of Persian, Indian scripts and emoji


def normal_label(text: str) -> str:
    """Return a label as it is stored: no spaces around it, single ones inside, accents composed (NFC).

    Invisible characters, such as a zero-width space or a change of direction, are left out: two labels that
    look the same are the same.

    Raises:
        QueryError: the label is empty, longer than `MAX_LABEL`, or has control characters.
    """
    text = "".join(each for each in text if not _is_invisible(each))
    # str.split takes control characters such as tabs for spaces: refuse those first
    label = " ".join(part for part in unicodedata.normalize("NFC", text).split(" ") if part)
    for character in label:
        if what := _REFUSED.get(unicodedata.category(character)):
            raise QueryError(f"the label {text!r} has {what} in it: {character!r}; leave it out")
    label = " ".join(label.split())  # the other spaces of Unicode
    if not label or len(label) > MAX_LABEL:
        raise QueryError(
            f"a label has 1 to {MAX_LABEL} characters, spaces around it not counted; "
            f"got {len(label)}: {label[:20]!r}"
        )
    return label


def _is_invisible(character: str) -> bool:
    is_part_of_writing = character in _JOINERS or "\U000e0020" <= character <= "\U000e007f"
    return unicodedata.category(character) == "Cf" and not is_part_of_writing


def folded(label: str) -> str:
    """Return the form by which labels are compared: upper and lower case are the same."""
    return unicodedata.normalize("NFC", normal_label(label).casefold())
