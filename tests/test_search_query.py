"""The language of queries: what is read, what is one sentence, and what an error says."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scanonce.search.query import (
    MAX_WEIGHT,
    And,
    Like,
    Not,
    Or,
    Query,
    Text,
    Then,
    Weighted,
    is_compound,
    is_plain,
    is_wanted,
    leaves,
    parse,
    sentence,
)
from scanonce.search.query_text import query_text
from scanonce.storage.errors import QueryError

A, B, C = Text("a"), Text("b"), Text("c")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("a | b", Or((A, B))),
        ("a|b", Or((A, B))),
        ("a OR b", Or((A, B))),
        ("a | b | c", Or((A, B, C))),
        ("a & b", And((A, B))),
        ("a AND b", And((A, B))),
        ("a & b | c", Or((And((A, B)), C))),
        ("a & (b | c)", And((A, Or((B, C))))),
        ("a -b", And((A, Not(B)))),
        ("a -b c", And((Text("a c"), Not(B)))),
        ("a NOT b c", And((A, Not(Text("b c"))))),
        ("a & not b", And((A, Not(B)))),
        ("a -(b | c)", And((A, Not(Or((B, C)))))),
        ("a & not not b", And((A, B))),
        ("a > b", Then(A, B)),
        ("a > b > c", Then(Then(A, B), C)),
        ("a > (b > c)", Then(A, Then(B, C))),
        ("a THEN b", Then(A, B)),
        ("a then b within 30s", Then(A, B, 30.0)),
        ("a > b within 1.5 min", Then(A, B, 90.0)),
        ("a > b within 5 seconds > c within 2s", Then(Then(A, B, 5.0), C, 2.0)),
        ("a & b > c | a", Or((Then(And((A, B)), C), A))),
        ("red car^2 | b", Or((Weighted(Text("red car"), 2.0), B))),
        ("(a | b)^.5 & c".replace(".5", "0.5"), And((Weighted(Or((A, B)), 0.5), C))),
        ("a^1 | b", Or((A, B))),
        ("said:we met", Text("we met", "said")),
        ("SAID:we met | b", Or((Text("we met", "said"), B))),
        ('written:"exit now" & b', And((Text("exit now", "written", exact=True), B))),
        ('"exact  words"', Text("exact words", exact=True)),
        ("like:film.mp4", Like("film.mp4")),
        ("like:film.mp4@1:20-1:30.5", Like("film.mp4", 80.0, 90.5)),
        ("like:film.mp4@1:00:00-1:00:02 at night", And((Text("at night"), Like("film.mp4", 3600.0, 3602.0)))),
        ('like:"my film.mp4"@5-7', Like("my film.mp4", 5.0, 7.0)),
        ("dog AND cat NOT bird", And((Text("dog"), Text("cat"), Not(Text("bird"))))),
    ],
)  # fmt: skip
def test_what_is_read(text: str, query: Query) -> None:
    assert parse(text) == query
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    "text",
    [
        "a boat without snow", "no boat on the sea", "a dog or a cat", "a dog, then a cat", "hot-air balloon",
        "a man (left) and a dog", "DOG AND CAT", "<b>bold</b> & amp;", "AC/DC", "5 -3", "-5 degrees", "he said: hello",
        "https://example.org/a?b=c^d", "a > b"[:1], "C:\\films", "then", "or", "not", "a --b", "()", "a (b",
        "not a boat", 'an unpaired " mark',
    ],
)  # fmt: skip
def test_what_is_one_sentence(text: str) -> None:
    if text == "<b>bold</b> & amp;":
        assert parse(text) == And((Text("<b>bold</b>"), Text("amp;")))
        return
    assert parse(text) == Text(text)
    assert is_plain(parse(text))


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("a | | b", 5, "allowed are words"),
        ("| a", 1, "allowed are words"),
        ("a |", 4, "ends too early"),
        ("(a | b", 7, "ends too early"),
        ("a | b)", 6, "“)” cannot stand here"),
        ("-snow", 1, "name something wanted too"),
        ("NOT snow", 1, "name something wanted too"),
        ("a | -snow", 1, "name something wanted too"),
        ("a > -b", 1, "name something wanted too"),
        ("a^0 | b", 1, "a weight is over 0"),
        (f"b | a^{MAX_WEIGHT + 1:g}", 5, "a weight is over 0"),
        ("a within 5s | b", 3, "“w” cannot stand here"),
        ('"" | a', 1, "nothing between the quotation marks"),
        ("like:x@5-3", 1, "its begin before its end"),
        ("like:x@1:2:3:4-5 | a", 1, "its begin before its end"),
        ("(" * 17 + "a | b" + ")" * 17, 17, "at most 16 brackets"),
        ("a | " * 65 + "b", 259, "at most 64 operators"),
    ],
)
def test_an_error_points_at_the_character(text: str, at: int, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    lines = str(caught.value).splitlines()
    assert f"at character {at}:" in lines[0]
    assert said in lines[0]
    shown, mark = lines[1], lines[2]
    assert mark.strip() == "^"
    pointed = shown[mark.index("^") :][:1]
    assert pointed == text[at - 1 : at]


_WORDS = st.sampled_from(["dog", "red car", "a", "hot-air", "5", "ünï", "then-some", "o'r"])
_PARTS = st.one_of(
    st.builds(Text, _WORDS, st.sampled_from(["", "said", "written", "seen", "name"]), st.booleans()),
    st.builds(Like, st.sampled_from(["a.mp4", "my film.mp4", "b@c", "x/y.mkv"])),
    st.builds(Like, st.just("a.mp4"), st.floats(0, 50), st.floats(50.001, 9999)).map(
        lambda like: Like(like.video, round(like.start_seconds or 0, 3), round(like.end_seconds or 0, 3))
    ),
)  # fmt: skip


def _wanted(queries: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    return queries.filter(is_wanted)


def _deeper(inner: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    several = st.lists(inner, min_size=2, max_size=3)
    return st.one_of(
        several.filter(lambda parts: any(map(is_wanted, parts))).map(_and),
        st.lists(_wanted(inner), min_size=2, max_size=3).map(_or),
        st.builds(Then, _wanted(inner), _wanted(inner), st.sampled_from([60.0, 5.0, 0.5])),
        st.builds(_not, inner),
        st.builds(_weighted, inner, st.sampled_from([0.5, 2.0, 10.0])),
    )


def _and(parts: list[Query]) -> Query:
    flat: list[Query] = []
    for part in parts:
        flat += part.parts if isinstance(part, And) else (part,)
    return And(tuple(flat))


def _or(parts: list[Query]) -> Query:
    flat: list[Query] = []
    for part in parts:
        flat += part.parts if isinstance(part, Or) else (part,)
    return Or(tuple(flat))


def _not(query: Query) -> Query:
    return query.query if isinstance(query, Not) else Not(query)


def _weighted(query: Query, weight: float) -> Query:
    return query if isinstance(query, Weighted) else Weighted(query, weight)


@given(_wanted(_deeper(_deeper(_PARTS) | _PARTS)))
@settings(max_examples=500)
def test_print_then_parse_is_the_same_query(query: Query) -> None:
    assert parse(str(query)) == query


_PIECES = st.sampled_from(
    ["a", "dog", " ", " ", "|", "&", ">", "-", "^2", "^", "(", ")", '"', "not ", " then ", " within 3s", "said:",
     "like:x@1-2", "OR ", " AND ", "^0.5", "name:", "\t", "ß", "犬", "'", "@", "1:20", "\u2028", "/", "\\"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=14).map("".join))
@settings(max_examples=2000)
@example("a > b > c within 3s")
@example("-" * 100 + "a | b")
@example("not " * 200 + "a | b")
@example("(" * 5000 + "|")
def test_any_text_is_read_or_refused_in_a_sentence(raw: str) -> None:
    try:
        query = parse(query_text(raw))
    except QueryError as error:
        assert "\n" in str(error) or "empty" in str(error)  # noqa: PT017 - most texts raise nothing
        return
    assert parse(str(query)) == query
    assert is_wanted(query)


@given(st.text(max_size=60))
def test_any_letters_are_read_or_refused(raw: str) -> None:
    try:
        text = query_text(raw)
        query = parse(text)
    except QueryError:
        return
    assert parse(str(query)) == query
    assert is_compound(text) or query == Text(text)


def test_the_wanted_and_the_unwanted_parts() -> None:
    query = parse("a -b > c & -(b | like:x) | a^2")
    assert list(leaves(query)) == [A, C, A]
    assert list(leaves(query, wanted=False)) == [B, B, Like("x")]
    assert sentence("a -b > c") == "a c"
    assert sentence("like:x") == "like:x"
