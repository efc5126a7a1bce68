"""Lines that stand beside an answer: what the encoder cannot read in the query, and logic that it does not follow.

>>> logic_words("a boat without snow")
('without',)
>>> notes("a boat without snow", Reading())
('“without” is not followed: the sentence is compared with images as a whole',)
"""

import re

from scanonce.models.encoders.reading import Reading
from scanonce.search.unread import unread_lines

_LOGIC = frozenset(["no", "not", "without", "or", "then", "except", "never"])
_WORD = re.compile(r"[^\W\d_]+")


def logic_words(query: str) -> tuple[str, ...]:
    """Return the words of a query that a comparison with images ignores, in order."""
    return tuple(dict.fromkeys(word for word in _WORD.findall(query.casefold()) if word in _LOGIC))


def notes(query: str, reading: Reading) -> tuple[str, ...]:
    """Return the lines for a query."""
    logic = logic_words(query)
    lines = unread_lines(reading, logic)
    if logic:
        words = ", ".join(f"“{word}”" for word in logic)
        is_are = "is" if len(logic) == 1 else "are"
        lines.append(
            f"{words} {is_are} not followed: the sentence is compared with images as a whole"
        )
    return tuple(lines)
