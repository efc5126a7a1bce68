"""Contact sheets: queries, and frames of the moments found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scanonce.media.open import open_video
from scanonce.media.sampling import Sampling
from scanonce.search.result import SearchResult
from scanonce.storage.records import Moment
from scanonce.ui.views import match_text, span_text, times_across

_SIZE = (256, 144)
_MARGIN = 16
_TEXT_WIDTH = 330
_FRAMES_PER_MOMENT = 4
_INK, _DIM, _PAPER = (32, 33, 36), (110, 113, 120), (250, 250, 248)


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A query, and frames of the moment found."""

    query: str
    caption: str
    frames: tuple[Image.Image, ...]


def contact_sheet(results: Sequence[SearchResult], path: Path) -> None:
    """Write a PNG with a row for each query: its text, the best moment, and frames across it.

    Decodes the videos in this process, unguarded: only for trusted videos, such as the rendered films.
    """
    rows = [_row(result) for result in results]
    width = _TEXT_WIDTH + _FRAMES_PER_MOMENT * (_SIZE[0] + _MARGIN) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, len(rows) * (_SIZE[1] + _MARGIN) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = _MARGIN + number * (_SIZE[1] + _MARGIN)
        _draw_texts(draw, row, (_MARGIN, top + 24))
        for column, frame in enumerate(row.frames):
            sheet.paste(frame, (_TEXT_WIDTH + _MARGIN + column * (_SIZE[0] + _MARGIN), top))
    sheet.save(path)


def moment_frames(moment: Moment, count: int) -> list[Image.Image]:
    """Return ``count`` frames spread evenly over a moment; fewer only if it has none at all."""
    times = times_across(moment.span, count)
    images: list[Image.Image] = []
    sampling = Sampling("uniform", max(4.0, count / max(moment.span.duration_seconds, 0.1)))
    with open_video(moment.path, sampling=sampling, min_short_side=2 * _SIZE[1]) as source:
        latest = None
        for frame in source.frames():
            while len(images) < count and frame.pts_seconds > times[len(images)]:
                images.append(Image.fromarray(frame.image if latest is None else latest))
            latest = frame.image
            if len(images) == count:
                break
        while len(images) < count and latest is not None:
            images.append(Image.fromarray(latest))
    return images


def _row(result: SearchResult) -> SheetRow:
    if not result.moments:
        return SheetRow(result.query, "nothing found", ())
    moment = result.moments[0]
    frames = tuple(_fitted(frame) for frame in moment_frames(moment, _FRAMES_PER_MOMENT))
    caption = f"{moment.path.name}\n{span_text(moment.span)}, {match_text(moment.probability)}"
    return SheetRow(result.query, caption, frames)


def _fitted(frame: Image.Image) -> Image.Image:
    """Return the frame in a box of fixed size, its aspect ratio kept."""
    frame.thumbnail(_SIZE, Image.Resampling.LANCZOS)
    box = Image.new("RGB", _SIZE, (0, 0, 0))
    box.paste(frame, ((_SIZE[0] - frame.width) // 2, (_SIZE[1] - frame.height) // 2))
    return box


def _draw_texts(draw: ImageDraw.ImageDraw, row: SheetRow, corner: tuple[int, int]) -> None:
    large, small = ImageFont.load_default(21), ImageFont.load_default(15)
    lines, line = [], ""
    for word in f"“{row.query}”".split():
        if line and draw.textlength(f"{line} {word}", large) > _TEXT_WIDTH - _MARGIN:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    text = "\n".join([*lines, line])
    draw.multiline_text(corner, text, _INK, large, spacing=6)
    height = draw.multiline_textbbox(corner, text, large, spacing=6)[3]
    draw.multiline_text((corner[0], height + 12), row.caption, _DIM, small, spacing=5)
