"""Contact sheets: what was asked, and pictures of what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scanonce.media.open import open_video
from scanonce.media.sampling import Sampling
from scanonce.search.engine import SearchResult
from scanonce.storage.records import Moment
from scanonce.ui.views import span_text

_PICTURE = (256, 144)
_MARGIN = 16
_TEXT_WIDTH = 330
_PICTURES_PER_MOMENT = 4
_INK, _DIM, _PAPER = (32, 33, 36), (110, 113, 120), (250, 250, 248)


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One query and pictures of the moment found."""

    query: str
    caption: str
    pictures: tuple[Image.Image, ...]


def contact_sheet(results: Sequence[SearchResult], path: Path) -> None:
    """Writes a PNG with a row for each query: the sentence, the best moment, and pictures across it.

    Decodes the videos here and now, in this process: for videos one trusts, such as our own films.
    """
    rows = [_row(result) for result in results]
    width = _TEXT_WIDTH + _PICTURES_PER_MOMENT * (_PICTURE[0] + _MARGIN) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, len(rows) * (_PICTURE[1] + _MARGIN) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = _MARGIN + number * (_PICTURE[1] + _MARGIN)
        _draw_texts(draw, row, (_MARGIN, top + 24))
        for column, picture in enumerate(row.pictures):
            sheet.paste(picture, (_TEXT_WIDTH + _MARGIN + column * (_PICTURE[0] + _MARGIN), top))
    sheet.save(path)


def moment_pictures(moment: Moment, count: int) -> list[Image.Image]:
    """Pictures evenly across a moment."""
    span = moment.span
    times = [span.start_seconds + (k + 0.5) / count * span.duration_seconds for k in range(count)]
    pictures: list[Image.Image] = []
    sampling = Sampling("uniform", max(4.0, count / max(span.duration_seconds, 0.1)))
    with open_video(moment.path, sampling=sampling, min_short_side=2 * _PICTURE[1]) as source:
        latest = None
        for frame in source.frames():
            while len(pictures) < count and frame.pts_seconds > times[len(pictures)]:
                pictures.append(Image.fromarray(frame.image if latest is None else latest))
            latest = frame.image
            if len(pictures) == count:
                break
        while len(pictures) < count and latest is not None:
            pictures.append(Image.fromarray(latest))
    return pictures


def _row(result: SearchResult) -> SheetRow:
    if result.no_good_match or not result.moments:
        return SheetRow(result.query, "no good match in this library", ())
    moment = result.moments[0]
    pictures = tuple(_fitted(picture) for picture in moment_pictures(moment, _PICTURES_PER_MOMENT))
    return SheetRow(result.query, f"{moment.path.name}\n{span_text(moment.span)}", pictures)


def _fitted(picture: Image.Image) -> Image.Image:
    """The picture in a fixed frame, its aspect kept."""
    picture.thumbnail(_PICTURE, Image.Resampling.LANCZOS)
    framed = Image.new("RGB", _PICTURE, (0, 0, 0))
    framed.paste(picture, ((_PICTURE[0] - picture.width) // 2, (_PICTURE[1] - picture.height) // 2))
    return framed


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
