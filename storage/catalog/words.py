"""The words of a text, as the catalogue's word index takes them.

>>> spaced("東京の朝 in Tokyo")
'東 京 の 朝 in Tokyo'
>>> words("Café, 10 o'clock"), matching(["café"], [["10", "o"]])
(['cafe', '10', 'o', 'clock'], '"café" OR "10 o"')

The index folds case and diacritics. Languages without spaces have a word for each letter, and a word of a query becomes
a phrase of letters: so words of two letters are found, which an index of trigrams cannot do.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

# Thai, Lao, Myanmar, Khmer, kana, Han (with its extensions)
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f])"
)
_WORD = re.compile(r"[^\W_]+")


def spaced(text: str) -> str:
    """Return a text with spaces around each letter of a script without spaces."""
    return " ".join(_UNSPACED.sub(r" \1 ", text).split()) if _UNSPACED.search(text) else text


def folded_word(word: str) -> str:
    """Return a word without case and diacritics, as the index compares it."""
    letters = unicodedata.normalize("NFKD", word.casefold())
    return "".join(each for each in letters if not unicodedata.combining(each))


def words(text: str) -> list[str]:
    """Return the folded words of a text in order."""
    return [folded for _, _, folded in word_spans(text)]


def word_spans(text: str) -> list[tuple[int, int, str]]:
    """Return ``(begin, end, folded word)`` of each word of a text, in order; see `spaced` for some scripts."""
    if text.isascii():
        return [(*each.span(), each.group().lower()) for each in _WORD.finditer(text)]
    found = []
    for match in _WORD.finditer(text):
        begin = match.start()
        for part in re.split(_UNSPACED, match.group()):
            if part and (folded := folded_word(part)):
                found.append((begin, begin + len(part), folded))
            begin += len(part)
    return found


def matching(single: Iterable[str], phrases: Iterable[Sequence[str]] = ()) -> str:
    """Return an expression of FTS5: any of these words or phrases. Letters that mean something there lose it."""
    each = [*single, *(" ".join(phrase) for phrase in phrases)]
    return " OR ".join(quoted(text) for text in each)


def quoted(text: str) -> str:
    """Return a text as a phrase of FTS5."""
    plain = text.replace('"', " ").replace("\0", " ")
    return f'"{plain}"'
