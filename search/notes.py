"""Lines that stand beside an answer: what the encoder cannot read in the query, and logic that it does not follow.

>>> logic_words("a boat without snow")
('without',)
>>> notes("a boat without snow", Reading())
('“without” is not followed: the sentence is compared with images as a whole; to follow it, ask: a boat -snow',)
"""

import re

from scanonce.models.encoders.reading import Reading
from scanonce.search.unread import unread_lines

_LOGIC = frozenset(["no", "not", "without", "or", "then", "except", "never"])
_WORD = re.compile(r"[^\W\d_]+")


def logic_words(query: str) -> tuple[str, ...]:
    """Return the words of a query that a comparison with images ignores, in order."""
    return tuple(dict.fromkeys(word for word in _WORD.findall(query.casefold()) if word in _LOGIC))


def proposed(query: str) -> str | None:
    """Return a sentence with words of logic in the language of queries (`search.query`), or None.

    It is only proposed: whether "no" means "without" is for the person to say.

    >>> proposed("no boat on the sea"), proposed("a dog or a cat"), proposed("a dog, then a cat")
    ('the sea -boat', 'a dog | a cat', 'a dog > a cat')
    """
    for pattern, template in _READINGS:
        found = pattern.fullmatch(query.strip(" ."))
        if found:
            parts = {name: part.strip(" ,") for name, part in found.groupdict().items()}
            unwanted = _ARTICLE.sub("", parts.pop("unwanted", ""))
            sign = f"-{unwanted}" if len(unwanted.split()) == 1 else f"& not {unwanted}"
            return template.format(**parts, unwanted=sign)
    return None


_ARTICLE = re.compile(r"^(?:a|an|any|the|some)\s+", re.IGNORECASE)
_READINGS = [
    (re.compile(pattern, re.IGNORECASE), template)
    for pattern, template in (
        (r"(?P<a>.+?),?\s+(?:and\s+)?then,?\s+(?P<b>.+)", "{a} > {b}"),
        (r"(?:either\s+)?(?P<a>.+?),?\s+or\s+(?P<b>.+)", "{a} | {b}"),
        (
            r"no\s+(?P<unwanted>\S+)\s+(?:on|in|at|by|near|under|over)\s+(?P<a>.+)",
            "{a} {unwanted}",
        ),
        (
            r"(?P<a>.+?),?\s+(?:without|except|but\s+not?|and\s+not?|with\s+no|not|no)\s+(?P<unwanted>.+)",
            "{a} {unwanted}",
        ),
    )
]
"""Readings of sentences with words of logic, the loosest word first."""


def notes(query: str, reading: Reading) -> tuple[str, ...]:
    """Return the lines for a query."""
    logic = logic_words(query)
    lines = unread_lines(reading, logic)
    if logic:
        words = ", ".join(f"“{word}”" for word in logic)
        is_are = "is" if len(logic) == 1 else "are"
        ask = proposed(query)
        lines.append(
            f"{words} {is_are} not followed: the sentence is compared with images as a whole"
            + (f"; to follow {'it' if len(logic) == 1 else 'them'}, ask: {ask}" if ask else "")
        )
    return tuple(lines)
