r"""How the text of a query is taken: whatever was typed or pasted becomes one line of plain text, or is refused.

>>> query_text("\ufeffa red\u2028fish\x00")
'a red fish'
"""

import unicodedata

from scanonce.storage.errors import QueryError

_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffd")
"""Letters by their category that show nothing: fillers of Hangul, blank Braille, the mark for broken bytes."""
_BREAKS = frozenset(["Cc", "Zl", "Zp"])


def query_text(text: str, name: str = "the query") -> str:
    """Return a text as it is searched: control characters and line breaks are spaces; none is at its ends.

    Byte order marks are left out. Everything else stays, markup and emoji included.

    Args:
        text: as it was typed or pasted.
        name: what to call it in an error.

    Raises:
        QueryError: the text shows nothing, such as one of spaces or zero-width characters only; or it has bytes that
            are not UTF-8, which Python keeps as halves of surrogate pairs.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        shown = text.encode("utf-8", "replace").decode("utf-8")
        raise QueryError(
            f'{name}, "{shown}", has bytes that are not UTF-8: type it again, or save its file as UTF-8'
        )
    spaced = (
        " " if unicodedata.category(letter) in _BREAKS else letter
        for letter in text.replace("\ufeff", "")
    )
    taken = "".join(spaced).strip()
    if not any(map(_is_visible, taken)):
        raise QueryError(f'{name} is empty; describe the moment, such as "a red car at night"')
    return taken


def _is_visible(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category[0] not in "ZM" and category != "Cf" and letter not in _BLANK_LETTERS
