"""The language of queries: a sentence, or sentences joined by operators.

    a | b               a or b
    a & b               both at the same time
    a -word, a & not b  a without b
    a > b within 30s    a, and then b in the same video
    a^2                 a counts twice
    ( )                 brackets
    said: written: seen: name:   where to look for the words that follow
    "exact words"       the words as they stand
    like:VIDEO@1:20-1:30         what looks like a piece of a video of the library

A text without an unmistakable sign of the language is one sentence, whatever words it has: nothing is guessed. The
signs are ``|``, ``&`` and ``>`` between spaces, ``-`` before a word, ``^`` with a number, a prefix, quotation marks,
AND, OR, NOT or THEN in capitals, and "then ... within 30s".

>>> parse("a boat without snow")
Text(words='a boat without snow', channel='', exact=False)
>>> parse("a boat -snow")
And(parts=(Text(words='a boat', channel='', exact=False), Not(query=Text(words='snow', channel='', exact=False))))
>>> print(parse("a dog then a cat within 2 min"))
a dog > a cat within 120s
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.tree import Meta

from scanonce.storage.errors import QueryError

Channel: TypeAlias = Literal["", "said", "written", "seen", "name"]
"""Where words are looked for; "" is everywhere."""
CHANNELS: tuple[Channel, ...] = get_args(Channel)

WITHIN_SECONDS = 60.0
"""Longest pause between ``a`` and ``b`` of ``a > b``, if the query names none."""
MAX_WEIGHT = 10.0
_MAX_SIGNS = 64
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    words: str
    channel: Channel = ""
    exact: bool = False
    """In quotation marks: the words as they stand."""

    def __str__(self) -> str:
        prefix = f"{self.channel}:" if self.channel else ""
        return f'{prefix}"{self.words}"' if self.exact else f"{prefix}{self.words}"


@dataclass(frozen=True, slots=True)
class Like:
    """An example: a piece of a video of the library, or all of it."""

    video: str
    """Path, end of a path, or name."""
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __str__(self) -> str:
        name = f'"{self.video}"' if re.search(r"[\s@()|&^]", self.video) else self.video
        if self.start_seconds is None or self.end_seconds is None:
            return f"like:{name}"
        return f"like:{name}@{_number(self.start_seconds)}-{_number(self.end_seconds)}"


@dataclass(frozen=True, slots=True)
class Given:
    """An example from outside of the library (`search.examples`): likeness with it is looked for.

    The text of a query never has one: who asks by text, such as a page of the server, names no file of the machine.
    """

    number: int
    """From 1, among the examples of the query."""
    name: str
    """Printable, for the answer."""

    def __str__(self) -> str:
        return f"[{self.name}]"


@dataclass(frozen=True, slots=True)
class Weighted:
    """A query that counts more or less than others: its log-odds are multiplied."""

    query: "Query"
    weight: float
    """Over 0, at most `MAX_WEIGHT`; not 1."""

    def __str__(self) -> str:
        return f"{_bracketed(self.query, isinstance(self.query, Atom))}^{_number(self.weight)}"


@dataclass(frozen=True, slots=True)
class Not:
    """Anything that must not be there."""

    query: "Query"

    def __str__(self) -> str:
        query = self.query
        if isinstance(query, Text) and not query.channel and not query.exact:
            return f"not {query}" if " " in query.words else f"-{query}"
        return f"-{_bracketed(query, is_bare=False)}"


@dataclass(frozen=True, slots=True)
class And:
    """All at the same time; at least one part is no `Not`."""

    parts: tuple["Query", ...]

    def __str__(self) -> str:
        return " & ".join(_bracketed(part, not isinstance(part, Or | Then)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Then:
    """One after the other in one video."""

    first: "Query"
    second: "Query"
    within_seconds: float = WITHIN_SECONDS
    """Longest time from the end of the first to the begin of the second."""

    def __str__(self) -> str:
        first = _bracketed(self.first, not isinstance(self.first, Or))
        second = _bracketed(self.second, not isinstance(self.second, Or | Then))
        if self.within_seconds == WITHIN_SECONDS:
            return f"{first} > {second}"
        return f"{first} > {second} within {_number(self.within_seconds)}s"


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    parts: tuple["Query", ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.parts))


Atom: TypeAlias = Text | Like | Given
"""A part of a query that has no parts."""
Query: TypeAlias = Atom | Weighted | Not | And | Then | Or


def leaves(query: Query, *, wanted: bool = True) -> Iterator[Atom]:
    """Yield the texts and examples of a query from left to right: those that are wanted, or those that must not be."""
    match query:
        case Text() | Like() | Given():
            if wanted:
                yield query
        case Not():
            yield from leaves(query.query, wanted=not wanted)
        case Weighted():
            yield from leaves(query.query, wanted=wanted)
        case Then():
            yield from leaves(query.first, wanted=wanted)
            yield from leaves(query.second, wanted=wanted)
        case And() | Or():
            for part in query.parts:
                yield from leaves(part, wanted=wanted)


def atoms(query: Query) -> list[Atom]:
    """Return the texts and examples of a query, each once: those that are wanted first."""
    return list(dict.fromkeys([*leaves(query), *leaves(query, wanted=False)]))


def sentence(text: str) -> str:
    """Return the words of a query that are wanted, as one sentence: what a curve or a count is made of.

    >>> sentence("a boat -snow"), sentence("a dog > a cat")
    ('a boat', 'a dog a cat')

    Raises:
        QueryError: see `parse`.
    """
    query = parse(text)
    words = [leaf.words for leaf in leaves(query) if isinstance(leaf, Text)]
    return " ".join(words) or text


def is_plain(query: Query) -> bool:
    """Whether a query is one sentence, to be looked for everywhere."""
    return isinstance(query, Text) and not query.channel and not query.exact


def is_wanted(query: Query) -> bool:
    """Whether a query says what to look for, and not only what must not be there."""
    match query:
        case Not():
            return False
        case Weighted():
            return is_wanted(query.query)
        case Then():
            return is_wanted(query.first) and is_wanted(query.second)
        case And():
            return any(map(is_wanted, query.parts))
        case Or():
            return all(map(is_wanted, query.parts))
    return True


def _number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _bracketed(query: Query, is_bare: bool) -> str:
    return str(query) if is_bare else f"({query})"


# --- Reading ---

_GRAMMAR = r"""
start: alternatives
alternatives: sequence (OR sequence)*
sequence: conjunction (THEN conjunction pause)*
pause: WITHIN?
conjunction: together (AND together)*
together: part+
?part: negated | weighted
negated: NOT part | MINUS single
?single: word | quoted | scoped | like | "(" alternatives ")"
word: WORD
weighted: atom WEIGHT?
?atom: phrase | quoted | scoped | like | "(" alternatives ")"
phrase: WORD+
quoted: QUOTED
scoped: PREFIX (phrase | quoted)
like: LIKE

OR.5: "|" | /or(?![^\s()|&"])/i
AND.5: "&" | /AND(?![^\s()|&"])/
THEN.5: />(?=[\s|&()"]|$)/ | /then(?![^\s()|&"])/i
NOT.5: /not(?![^\s()|&"])/i
WITHIN.6: /within\s+\d{1,9}(\.\d{1,9})?\s*(s|secs?|seconds?|m|mins?|minutes?)(?![^\s()|&"])/i
MINUS.6: /(?<![^\s()|&"])-(?=[^\s\-|&^)\d])/
WEIGHT.6: /\^\d{1,9}(\.\d{1,9})?(?![^\s()|&"])/
PREFIX.5: /(?<![^\s(|&\-])(said|written|seen|name):(?=[^\s()|&^\/\\])/i
LIKE.7: /(?<![^\s(|&\-])like:("[^"]+"|[^\s@"()|&^]+)(@[\d:.]+-[\d:.]+)?(?![^\s()|&^])/i
QUOTED.5: /"[^"]*"/
WORD: /[^\s|&()"^]+/
%ignore /\s+/
"""

_NAMES = {
    "WORD": "words",
    "QUOTED": '"exact words"',
    "LPAR": "(",
    "RPAR": ")",
    "OR": "|",
    "AND": "&",
    "THEN": ">",
    "NOT": "not",
    "MINUS": "-word",
    "WITHIN": "within 30s",
    "WEIGHT": "^2",
    "PREFIX": "said: written: seen: name:",
    "LIKE": "like:VIDEO@1:20-1:30",
    "$END": "the end",
}
"""The form in which a person types each terminal of the grammar."""

_SIGNS = re.compile(
    r"""(?:^|\s)[|&](?:\s|$)|\S\s+>\s  # operators between spaces
    |\S\|\S                            # a|b
    |(?:^|[\s(|&])-(?=[^\s\-|&^)\d])   # -word
    |\S\^\d+(?:\.\d+)?(?:[\s)|&"]|$)   # word^2
    |(?:^|[\s(|&\-])(?:(?:said|written|seen|name):(?=[^\s()|&^/\\])|like:\S)
    |"[^"]+"
    |\sthen\s.*\swithin\s+\d""",
    re.VERBOSE | re.IGNORECASE,
)
_CAPITALS = re.compile(r"\S\s+(?:AND|OR|THEN)\s+\S|(?:^|\s)NOT\s+\S")

_SPACED_PREFIX = r"-?(?:said|written|seen|name):)\s+(?=[^\s()|&^/\\])"
_SPACED = re.compile(rf"((?:^|[\s(|&]){_SPACED_PREFIX}", re.IGNORECASE)
"""A prefix and the spaces after it, which are left out."""
_SPACED_FIRST = re.compile(rf"((?:^[(|&]?|[(|&]\s*[\s(|&]){_SPACED_PREFIX}", re.IGNORECASE)
"""The same where a part begins, which makes a text a query of the language."""


def is_compound(text: str) -> bool:
    """Whether a text has a sign of the language of queries."""
    if _SPACED_FIRST.search(text) or _SIGNS.search(text):
        return True
    return _CAPITALS.search(text) is not None and any(letter.islower() for letter in text)


def parse(text: str, *, has_examples: bool = False) -> Query:
    """Read a query.

    Args:
        text: one line, as of `search.query_text.query_text`.
        has_examples: examples say what is wanted, so the text may say only what must not be there.

    Raises:
        QueryError: the text has a sign of the language and cannot be read. The error points at the character and says
            what is allowed there.
    """
    if not is_compound(text):
        return Text(text)
    text = _SPACED.sub(r"\1", text)
    _check_size(text)
    try:
        query = _Builder(text, has_examples).transform(_parser().parse(text))
    except UnexpectedInput as error:
        raise _unreadable(text, error) from None
    except VisitError as error:
        if isinstance(error.orig_exc, QueryError):
            raise error.orig_exc from None
        raise
    assert not isinstance(query, float)
    return query


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="basic", propagate_positions=True)


def _check_size(text: str) -> None:
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth > _MAX_DEPTH:
            raise _pointed(text, at, f"at most {_MAX_DEPTH} brackets may be inside each other")
    signs = [*re.finditer(r"""[|&>^("-]|(?<!\S)(?:not|or|then)(?!\S)""", text, re.IGNORECASE)]
    if len(signs) > _MAX_SIGNS:
        raise _pointed(
            text, signs[_MAX_SIGNS].start(), f"a query has at most {_MAX_SIGNS} operators"
        )


def _pointed(text: str, at: int, problem: str) -> QueryError:
    """Return an error that shows the query around a character, with a mark below it."""
    begin = max(0, at - 50)
    shown = text[begin : begin + 70]
    return QueryError(
        f"the query cannot be read at character {at + 1}: {problem}\n  {shown}\n  {' ' * (at - begin)}^"
    )


def _unreadable(text: str, error: UnexpectedInput) -> QueryError:
    at = error.pos_in_stream
    if at is None or not 0 <= at < len(text):
        at = len(text)
    if isinstance(error, UnexpectedCharacters):
        expected = error.allowed
    elif isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
        if error.token.type == "$END":
            at = len(text)
    else:
        expected = set()
    allowed = " ".join(shown for name, shown in _NAMES.items() if name in expected)
    here = "it ends too early" if at == len(text) else f"“{text[at]}” cannot stand here"
    return _pointed(text, at, f"{here}; allowed are {allowed}")


@v_args(meta=True)
class _Builder(Transformer[Token, Query | float]):
    """Builds the query from the tree of the grammar, bottom up; a method for each rule."""

    def __init__(self, text: str, has_examples: bool) -> None:
        super().__init__()
        self._text, self._has_examples = text, has_examples

    def start(self, meta: Meta, children: list[Query]) -> Query:
        if not self._has_examples:
            self._check_wanted(meta, children)
        return children[0]

    def alternatives(self, meta: Meta, children: list[Query | Token]) -> Query:
        parts = _queries(children)
        if len(parts) == 1:
            return parts[0]
        self._check_wanted(meta, parts)
        return Or(tuple(each for part in parts for each in _opened(part, Or)))

    def sequence(self, meta: Meta, children: list[Query | float | Token]) -> Query:
        query, *rest = _queries(children)
        if rest:
            self._check_wanted(meta, [query, *rest])
        pauses = [each for each in children if isinstance(each, float)]
        for part, pause in zip(rest, pauses, strict=True):
            query = Then(query, part, pause)
        return query

    def pause(self, meta: Meta, children: list[Token]) -> float:
        if not children:
            return WITHIN_SECONDS
        found = _WITHIN.match(children[0])
        assert found is not None
        return float(found[1]) * (60.0 if found[2].lower() == "m" else 1.0)

    def conjunction(self, meta: Meta, children: list[Query | Token]) -> Query:
        return _joined(_queries(children))

    def together(self, meta: Meta, children: list[Query]) -> Query:
        """Parts without an operator between them; the words around a -word are one sentence."""
        words = [str(part) for part in children if is_plain(part)]
        others = [part for part in children if not is_plain(part)]
        return _joined([Text(" ".join(words)), *others] if words else others)

    def negated(self, meta: Meta, children: list[Query | Token]) -> Query:
        (query,) = _queries(children)
        return query.query if isinstance(query, Not) else Not(query)

    def weighted(self, meta: Meta, children: list[Query | Token]) -> Query:
        (query,) = _queries(children)
        weight = float(str(children[-1])[1:]) if isinstance(children[-1], Token) else 1.0
        if not 0 < weight <= MAX_WEIGHT:
            problem = f"a weight is over 0 and at most {MAX_WEIGHT:g}"
            raise _pointed(self._text, meta.start_pos, problem)
        return query if weight == 1.0 else Weighted(query, weight)

    def word(self, meta: Meta, children: list[Token]) -> Query:
        return Text(str(children[0]))

    def phrase(self, meta: Meta, children: list[Token]) -> Query:
        return Text(" ".join(children))

    def quoted(self, meta: Meta, children: list[Token]) -> Query:
        words = " ".join(children[0][1:-1].split())
        if not words:
            problem = "there is nothing between the quotation marks"
            raise _pointed(self._text, meta.start_pos, problem)
        return Text(words, exact=True)

    def scoped(self, meta: Meta, children: list[Query | Token]) -> Query:
        prefix, text = children
        assert isinstance(text, Text)
        (channel,) = (each for each in CHANNELS if f"{each}:" == str(prefix).lower())
        return Text(text.words, channel, text.exact)

    def like(self, meta: Meta, children: list[Token]) -> Query:
        found = _LIKE.fullmatch(children[0])
        assert found is not None
        name, start, end = found.groups()
        if start is None:
            return Like(name.strip('"'))
        begin_seconds, end_seconds = seconds_of(start), seconds_of(end)
        if begin_seconds is None or end_seconds is None or begin_seconds >= end_seconds:
            problem = "a piece of a video is such as 1:20-1:30, its begin before its end"
            raise _pointed(self._text, meta.start_pos, problem)
        return Like(name.strip('"'), begin_seconds, end_seconds)

    def _check_wanted(self, meta: Meta, queries: Sequence[Query]) -> None:
        for query in queries:
            if not is_wanted(query):
                problem = f"name something wanted too, such as: sea & {query}"
                raise _pointed(self._text, meta.start_pos, problem)


_WITHIN = re.compile(r"within\s+([\d.]+)\s*(\w)", re.IGNORECASE)
_LIKE = re.compile(r'like:("[^"]+"|[^@]+)(?:@([\d:.]+)-([\d:.]+))?', re.IGNORECASE)


def _queries(children: Sequence[Query | float | Token]) -> list[Query]:
    return [each for each in children if not isinstance(each, Token | float)]


def _opened(query: Query, kind: type[And] | type[Or]) -> tuple[Query, ...]:
    """The parts of a query of the same kind as the one around it."""
    return query.parts if isinstance(query, And | Or) and isinstance(query, kind) else (query,)


def _joined(parts: Sequence[Query]) -> Query:
    flat = tuple(each for part in parts for each in _opened(part, And))
    return flat[0] if len(flat) == 1 else And(flat)


def seconds_of(time: str) -> float | None:
    """Return the seconds of ``80``, ``1:20`` or ``1:01:20.5``; None if it is no time."""
    parts = time.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return None
    if len(parts) > 3:
        return None
    seconds = 0.0
    for value in values:
        seconds = 60 * seconds + value
    return seconds
