"""Texts of single pictures joined to lines that last: from the first to the last picture that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from scanonce.media.tracks import Picture
from scanonce.models.tracks.text_in_images import ReadText
from scanonce.storage.records import Line

_ALIKE = 85.0  # of 100, by edit distance: the same text, read in another way
_LEAST_BEGINNING = 4  # letters that a half-read text shares with the whole one
_NEAR_HEIGHTS = 1.5  # of its own height: how far a row moves from one picture to the next
_LEAST_LETTERS = 2


@dataclass
class _Live:
    """A text that is on screen."""

    start_seconds: float
    box: ReadText
    votes: dict[str, float] = field(default_factory=dict)
    """How often each variant was read, by confidence."""
    gone_seconds: float | None = None
    """When it was not there any more, if the last picture did not show it."""

    def see(self, text: ReadText) -> None:
        """Note that a picture shows it."""
        self.box, self.gone_seconds = text, None
        self.votes[text.text] = self.votes.get(text.text, 0.0) + text.confidence

    @property
    def text(self) -> str:
        """The variant that was read best; of equal ones the longest."""
        return max(self.votes, key=lambda text: (round(self.votes[text], 1), len(text)))


class WrittenLines:
    """Takes the texts of the pictures of one video in order."""

    def __init__(self) -> None:
        self._live: list[_Live] = []
        self._read_seconds = 0.0
        self._lines: list[tuple[float, float, str, float]] = []

    def add(self, picture: Picture, texts: Sequence[ReadText]) -> bool:
        """Take the texts of the next picture; return whether one of them is new.

        Args:
            picture: the picture.
            texts: its texts, their boxes in pixels of its band.
        """
        bottom = picture.top + len(picture.band)
        here = [each for each in self._live if picture.top <= _middle(each.box) < bottom]
        is_new = False
        for read in texts:
            moved = _moved(read, picture.top)
            known = self._find(moved, here)
            if known is None:
                known = _Live(self._since(picture, moved), moved)
                self._live.append(known)
                is_new = True
            else:
                here.remove(known)
            known.see(moved)
        for missing in here:
            if missing.gone_seconds is not None:  # not in two pictures in a row: no flicker
                self._end(missing, missing.gone_seconds)
                continue
            missing.gone_seconds = self._since(picture, missing.box)
        self._read_seconds = picture.seconds
        return is_new

    def finish(self, video_id: int, end_seconds: float) -> list[Line]:
        """Return all lines by rising start; texts still on screen last to the end of the video."""
        for each in list(self._live):
            self._end(each, end_seconds if each.gone_seconds is None else each.gone_seconds)
        return [
            Line(video_id, "written", start, max(start, min(end, end_seconds)), text, confidence)
            for start, end, text, confidence in sorted(self._lines)
            if start < end_seconds
        ]

    def _since(self, picture: Picture, box: ReadText) -> float:
        """Return since when a box looks as it does, as far as that is after the last picture."""
        since = picture.since_at(box.left, box.top, box.right, box.bottom)
        return since if self._read_seconds < since <= picture.seconds else picture.seconds

    def _end(self, live: _Live, end_seconds: float) -> None:
        self._live.remove(live)
        text = live.text
        if sum(letter.isalnum() for letter in text) >= _LEAST_LETTERS:
            end = max(live.start_seconds, end_seconds)
            self._lines.append((live.start_seconds, end, text, live.box.confidence))

    def _find(self, read: ReadText, among: Sequence[_Live]) -> _Live | None:
        """Return the text on screen that this one is, the most alike of them."""
        from rapidfuzz.fuzz import ratio

        best: tuple[float, _Live] | None = None
        for live in among:
            alike = max(ratio(read.text.casefold(), known.casefold()) for known in live.votes)
            is_same = alike >= _ALIKE or _is_half(read.text, live.text)
            if is_same and _is_near(read, live.box) and (best is None or alike > best[0]):
                best = alike, live
        return None if best is None else best[1]


def _is_half(one: str, other: str) -> bool:
    """Whether one text is the beginning of the other, as while it is typed."""
    short, long = sorted((one.casefold(), other.casefold()), key=len)
    return len(short) >= _LEAST_BEGINNING and long.startswith(short)


def _is_near(one: ReadText, other: ReadText) -> bool:
    height = max(one.bottom - one.top, other.bottom - other.top, 1.0)
    return abs(_middle(one) - _middle(other)) <= _NEAR_HEIGHTS * height


def _middle(text: ReadText) -> float:
    return (text.top + text.bottom) / 2


def _moved(text: ReadText, down: int) -> ReadText:
    return ReadText(
        text.text, text.confidence, text.left, text.top + down, text.right, text.bottom + down
    )
