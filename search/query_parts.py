r"""What a query asks of which channel.

>>> query_parts('we met on Discord')
(Part(text='we met on Discord', channels=None, phrases=()),)
>>> [(part.text, part.channels) for part in query_parts('seen: a red car said: "turn left" now')]
[('a red car', ('seen',)), ('turn left now', ('said', 'subtitle'))]
>>> query_parts('a red car "turn left"')[1].phrases
('turn left',)

``said:``, ``written:``, ``seen:`` and ``name:`` restrict what follows to one channel; several of them ask for moments
that meet all. Words in quotes have to be there as they are, one after another: outside of a prefix, they ask
for words, not for images.
"""

import re
from dataclasses import dataclass

from scanonce.storage.records import Channel

_CHANNELS: dict[str, tuple[Channel, ...]] = {
    "seen": ("seen",),
    "said": ("said", "subtitle"),
    "written": ("written",),
    "name": ("name",),
}
_TEXT: tuple[Channel, ...] = ("said", "subtitle", "written")
_PREFIX = re.compile(rf"(?:(?<=\s)|^)({'|'.join(_CHANNELS)}):\s*", re.IGNORECASE)
_QUOTED = re.compile(r'["“„»]([^"“”„»«]+)["”“«]')


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a query that one or more channels answer."""

    text: str
    """Its words, quoted ones too, without quotes."""
    channels: tuple[Channel, ...] | None = None
    """The channels that are asked; None: all."""
    phrases: tuple[str, ...] = ()
    """Words that have to follow each other as they do here."""

    def asks(self, channel: Channel) -> bool:
        """Whether a channel is asked."""
        return self.channels is None or channel in self.channels


def query_parts(query: str) -> tuple[Part, ...]:
    """Return the parts of a query, at least one; a moment has to meet them all."""
    pieces = _PREFIX.split(query)  # text, prefix, text, prefix, text ...
    parts = _unrestricted(pieces[0])
    for prefix, text in zip(pieces[1::2], pieces[2::2], strict=True):
        if plain := _without_quotes(text):
            phrases = tuple(each.strip() for each in _QUOTED.findall(text))
            parts.append(Part(plain, _CHANNELS[prefix.lower()], phrases))
    return tuple(parts) or (Part(query.strip()),)


def _unrestricted(text: str) -> list[Part]:
    """Return what the part of a query without a prefix asks for: words in quotes, and the rest."""
    quoted = [each.strip() for each in _QUOTED.findall(text) if each.strip()]
    rest = " ".join(_QUOTED.sub(" ", text).split())
    parts = [Part(rest)] if rest else []
    return parts + [Part(each, _TEXT, (each,)) for each in quoted]


def _without_quotes(text: str) -> str:
    return " ".join(_QUOTED.sub(r" \1 ", text).split())
