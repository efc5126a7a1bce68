"""What a tokenizer makes of a text: words that it cannot read, and what does not fit.

>>> read_pieces(["a", "dog"], [1, 1], has_unknown=[False, False])
Reading(unread=(), is_cut=False, num_words=2, num_read=2)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_PIECES_PER_CHARACTER = 0.5
"""A word in more pieces than this is spelled, not read: words of the language of training have one to three pieces."""
_SPELLED = 3
"""Least number of pieces of such a word."""


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
        if unknown or (count >= _SPELLED and count > _PIECES_PER_CHARACTER * len(word))
    ]
    read = len(words) if num_read is None else min(num_read, len(words))
    return Reading(tuple(dict.fromkeys(unread)), read < len(words), len(words), read)


def read_text(tokenizer: Any, text: str, max_tokens: int) -> Reading:
    """Judge a text by a tokenizer of `transformers`.

    Args:
        tokenizer: the tokenizer.
        text: any text.
        max_tokens: context of the encoder in tokens, marks of start and end included.
    """
    words = text.split()
    pieces = [tokenizer.encode(word, add_special_tokens=False) for word in words]
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
