"""What a tokenizer makes of a text: words that it cannot read, their scripts, and what does not fit.

>>> read_pieces(["a", "dog"], [1, 1], has_unknown=[False, False])
Reading(unread=(), is_cut=False, num_words=2, num_read=2, scripts=())
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_PIECES_PER_CHARACTER = 0.5
"""A word in more pieces than this is spelled, not read: words of the language of training have one to three pieces."""
_SPELLED = 3
"""Least number of pieces of such a word."""
_PIECES_PER_SIGN = 1.0
"""The same for scripts whose signs are syllables or words, which stand without spaces between words."""

_SCRIPTS = {
    "CJK": "Chinese characters",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CYRILLIC": "Cyrillic",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "GREEK": "Greek",
    "DEVANAGARI": "Devanagari",
    "BENGALI": "Bengali",
    "TAMIL": "Tamil",
    "TELUGU": "Telugu",
    "THAI": "Thai",
    "LAO": "Lao",
    "KHMER": "Khmer",
    "MYANMAR": "Burmese",
    "GEORGIAN": "Georgian",
    "ARMENIAN": "Armenian",
    "ETHIOPIC": "Ethiopic",
}
"""Names for people of scripts other than Latin, by the first word of the Unicode names of their letters."""
_WITHOUT_SPACES = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How an encoder reads a text."""

    unread: tuple[str, ...] = ()
    """Words without meaning for it: unknown ones, and those in another script than it was trained on."""
    is_cut: bool = False
    """Whether the text is longer than the context of the encoder, which drops the end."""
    num_words: int = 0
    num_read: int = 0
    """Number of words within the context."""
    scripts: tuple[str, ...] = ()
    """Names of the scripts of the unread words, other than Latin."""

    @property
    def share(self) -> float:
        """Share of the words that are read, 0 to 1; 1 for an image."""
        if not self.num_words:
            return 1.0
        return max(0.0, 1.0 - len(self.unread) / self.num_words)


def read_pieces(
    words: Sequence[str],
    num_pieces: Sequence[int],
    has_unknown: Sequence[bool],
    *,
    num_read: int | None = None,
) -> Reading:
    """Judge the words of a text by the pieces that a tokenizer cuts them into.

    Args:
        words: the words.
        num_pieces: number of pieces of each.
        has_unknown: whether a piece of it is the token for everything unknown.
        num_read: number of words within the context; None: all.
    """
    unread = [
        word
        for word, count, unknown in zip(words, num_pieces, has_unknown, strict=True)
        if unknown or _is_spelled(word, count)
    ]
    read = len(words) if num_read is None else min(num_read, len(words))
    scripts = dict.fromkeys(_SCRIPTS[each] for word in unread for each in scripts_of(word))
    return Reading(
        tuple(dict.fromkeys(unread)), read < len(words), len(words), read, tuple(scripts)
    )


def scripts_of(text: str) -> list[str]:
    """Return the scripts of the letters of a text other than Latin, as keys of the table of scripts, in order.

    >>> scripts_of("a 猫 и собака")
    ['CJK', 'CYRILLIC']
    """
    first = (unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha())
    return list(dict.fromkeys(name for name in first if name in _SCRIPTS))


def _is_spelled(word: str, num_pieces: int) -> bool:
    """Whether a word is cut into more pieces than words that are read."""
    has_signs = not _WITHOUT_SPACES.isdisjoint(scripts_of(word))
    most = _PIECES_PER_SIGN if has_signs else _PIECES_PER_CHARACTER
    least = 2 if has_signs else _SPELLED
    return num_pieces >= least and num_pieces > most * len(word)


def read_text(
    tokenizer: Any, text: str, max_tokens: int, prepare: Callable[[str], str] = str
) -> Reading:
    """Judge a text by a tokenizer of `transformers`.

    Args:
        tokenizer: the tokenizer.
        text: any text.
        max_tokens: context of the encoder in tokens, marks of start and end included.
        prepare: what the encoder does with a text before the tokenizer, such as lower-casing.
    """
    words = text.split()
    pieces = [_pieces(tokenizer, prepare(word)) for word in words]
    unknown = tokenizer.unk_token_id
    # CLIP's tokenizer has the end mark as its unknown token, but byte-level pieces for everything
    has_unknown = [unknown in each and unknown != tokenizer.eos_token_id for each in pieces]
    room = max_tokens - tokenizer.num_special_tokens_to_add()
    used, num_read = 0, 0
    for each in pieces:
        used += len(each)
        if used > room:
            break
        num_read += 1
    return read_pieces(words, [len(each) for each in pieces], has_unknown, num_read=num_read)


def _pieces(tokenizer: Any, word: str) -> list[int]:
    """Return the pieces of a word in the middle of a text, where a tokenizer may know it with a space before it."""
    alone: list[int] = tokenizer.encode(word, add_special_tokens=False)
    if len(alone) < _SPELLED:
        return alone
    inside: list[int] = tokenizer.encode(f" {word}", add_special_tokens=False)
    return min(alone, inside, key=len)
