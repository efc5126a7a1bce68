"""Images and clips from outside as queries, over a library of flat colours."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from scanonce.media.answers import Failed, Finished, Frames
from scanonce.media.still import MAX_PIXELS, is_still
from scanonce.search.engine import SearchEngine
from scanonce.search.examples import MAX_EXAMPLES, Example, with_examples
from scanonce.search.query import And, Given, Not, Text, Weighted, parse, sentence
from scanonce.storage.errors import EncoderError, ManifestMismatch, QueryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment, Span
from tests.colours import COLOURS, ColourEncoder
from tests.decoding import STEPS, decode, make_request
from tests.indexes import colour_library, open_engine

SURE = 0.995
FILMS = {
    "red": [("black", 8), ("red", 8), ("white", 8)],
    "blue": [("white", 8), ("blue", 8), ("black", 8)],
    "green-red": [("black", 8), ("green", 8), ("red", 8)],
}
FORMATS = ("png", "jpg", "webp", "bmp", "gif")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return colour_library(tmp_path_factory.mktemp("library"), FILMS)


@pytest.fixture
def engine(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchEngine]:
    monkeypatch.setattr("scanonce.search.examples.load_encoder", lambda *_, **__: ColourEncoder())
    with open_engine(layout) as engine:
        yield engine


def picture(path: Path, colour: str) -> Path:
    Image.new("RGB", (64, 48), COLOURS[colour]).save(path)
    return path


def sure(moments: tuple[Moment, ...]) -> set[str]:
    return {moment.path.stem for moment in moments if moment.probability >= SURE}


# --- Answers ---


@pytest.mark.parametrize("ending", FORMATS)
def test_an_image_finds_what_looks_like_it(
    engine: SearchEngine, tmp_path: Path, ending: str
) -> None:
    path = picture(tmp_path / f"sky.{ending}", "blue")
    result = engine.search("", examples=[Example(path)])
    assert sure(result.moments) == {"blue"}
    assert result.moments[0].span.tiou(Span(8, 16)) > 0.8
    assert result.query == f"[sky.{ending}]"
    assert result.notes == (f"read as: [sky.{ending}]",)
    assert set(result.timings_ms) == {"examples", "text", "library", "moments", "total"}


def test_a_clip_of_the_library_is_the_same_as_its_stored_piece(
    engine: SearchEngine, layout: IndexLayout
) -> None:
    path = layout.root.parent / "films" / "red.mp4"
    for piece in ((9.0, 15.0), (5.2, 12.7)):
        given = engine.search("", examples=[Example(path, span=piece)], top=5)
        stored = engine.search(f"like:red.mp4@{piece[0]}-{piece[1]}", top=5)
        assert given.moments == stored.moments
    whole = engine.search("", examples=[Example(path)], top=5)
    assert whole.moments == engine.search("like:red.mp4", top=5).moments


def test_a_sentence_and_an_image_are_one_image(engine: SearchEngine, tmp_path: Path) -> None:
    red, blue = picture(tmp_path / "r.png", "red"), picture(tmp_path / "b.png", "blue")

    def first_two(text: str, *examples: Example) -> set[str]:
        return {moment.path.stem for moment in engine.search(text, examples=examples).moments[:2]}

    assert first_two("red", Example(red)) == {"red", "green-red"}
    assert first_two("red", Example(blue)) == {"red", "green-red"}  # words change the image
    assert (
        engine.search("red", examples=[Example(blue, weight=10.0)]).moments[0].path.stem == "blue"
    )
    assert sure(engine.search("", examples=[Example(red), Example(blue)]).moments) == set()
    followed = engine.search("green > red", examples=[Example(red)]).moments
    assert followed[0].path.stem == "green-red"


def test_a_text_may_say_only_what_must_not_be_there(engine: SearchEngine, tmp_path: Path) -> None:
    red = Example(picture(tmp_path / "r.png", "red"))
    assert sure(engine.search("-blue", examples=[red]).moments) == {"red", "green-red"}
    assert sure(engine.search("-red", examples=[red]).moments) == set()


def test_a_crop_is_the_part_that_counts(engine: SearchEngine, tmp_path: Path) -> None:
    pixels = np.full((40, 80, 3), COLOURS["red"], np.uint8)
    pixels[:, 40:] = COLOURS["blue"]
    Image.fromarray(pixels).save(tmp_path / "both.png")
    for box, name in (((0.5, 0.0, 1.0, 1.0), "blue"), ((0.0, 0.2, 0.4, 0.8), "red")):
        found = engine.search("", examples=[Example(tmp_path / "both.png", box=box)]).moments
        assert name in sure(found)
        assert found[0].path.stem in (name, "green-red")
        assert ("blue" in sure(found)) == (name == "blue")


def test_a_filter_holds_for_examples(engine: SearchEngine, tmp_path: Path) -> None:
    red = Example(picture(tmp_path / "r.png", "red"))
    (number,) = [number for number, video in engine.videos.items() if video.path.stem == "red"]
    assert {
        each.video_id for each in engine.search("", examples=[red], within=[number]).moments
    } == {number}


# --- The tree ---


def test_examples_join_the_text_with_their_weights() -> None:
    one, two = Example("a.png"), Example("b.mp4", span=(1, 2), weight=2.0)
    query, given = with_examples("a boat -snow", [one, two])
    assert isinstance(query, And)
    assert query.parts == (
        Text("a boat"),
        Not(Text("snow")),
        Given(1, "a.png"),
        Weighted(Given(2, "b.mp4"), 2.0),
    )
    assert given == {Given(1, "a.png"): one, Given(2, "b.mp4"): two}
    assert str(query) == "a boat & -snow & [a.png] & [b.mp4]^2"
    assert with_examples(" ", [one])[0] == Given(1, "a.png")


def test_no_text_of_a_query_names_a_file_of_the_machine(tmp_path: Path) -> None:
    for name in ("[a.png]", str(tmp_path / "a.png"), f"[{tmp_path}/a.png] & red"):
        query = parse(name)
        assert not isinstance(query, Given)
        assert sentence(name)
    with pytest.raises(QueryError, match="name something wanted too"):
        parse("-red")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weight": 0.0}, "a weight is over 0"),
        ({"weight": 11.0}, "a weight is over 0"),
        ({"span": (3.0, 3.0)}, "its begin before its end"),
        ({"span": (-1.0, 3.0)}, "its begin before its end"),
        ({"span": (0.0, float("nan"))}, "its begin before its end"),
        ({"box": (0.5, 0.0, 0.5, 1.0)}, "a crop is left, top, right, bottom"),
        ({"box": (0.0, 0.0, 1.5, 1.0)}, "a crop is left, top, right, bottom"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        Example("a.png", **values)  # type: ignore[arg-type]


def test_the_number_of_examples_is_limited() -> None:
    with pytest.raises(QueryError, match="at most 16 examples"):
        with_examples("", [Example("a.png")] * (MAX_EXAMPLES + 1))


# --- Bad files ---


def _png(width: int, height: int) -> bytes:
    """A PNG file that claims a size, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_bad_file_is_an_error_that_names_it(
    engine: SearchEngine, layout: IndexLayout, tmp_path: Path
) -> None:
    film = layout.root.parent / "films" / "red.mp4"
    whole = picture(tmp_path / "whole.jpg", "red").read_bytes()
    files = {
        "cut.jpg": whole[: len(whole) // 2],
        "huge.png": _png(100_000, 100_000),
        "short.png": _png(500, 500),
        "empty.png": b"",
        "text.png": b"no image at all",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    cases = [
        (Example(tmp_path / "none.png"), "there is no file .*none.png"),
        (Example(tmp_path), "there is no file"),
        (Example("x" * 5000), "there is no file"),
        (Example(tmp_path / "cut.jpg"), "cut.jpg: the image cannot be read"),
        (Example(tmp_path / "huge.png"), "huge.png: the image has 100000 x 100000 pixels"),
        (Example(tmp_path / "short.png"), "short.png: the image cannot be read"),
        (Example(tmp_path / "empty.png"), "empty.png: the file is empty"),
        (Example(tmp_path / "text.png", kind="image"), "text.png: not an image"),
        (Example(film, kind="image"), "red.mp4: not an image"),
        (
            Example(film, span=(90, 95)),
            "red.mp4 has only 24.0 seconds; the piece 90-95 begins later",
        ),
    ]
    for example, said in cases:
        with pytest.raises(QueryError, match=said):
            engine.search("red", examples=[example])


def test_an_encoder_without_a_vision_tower_is_an_error(
    engine: SearchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = Example(picture(tmp_path / "r.png", "red"))

    def fail(*_: object, **__: object) -> ColourEncoder:
        raise EncoderError("it has no images")

    monkeypatch.setattr("scanonce.search.examples.load_encoder", fail)
    with pytest.raises(EncoderError, match=r"needs the vision tower of colours.*it has no images"):
        engine.search("", examples=[red])
    other = ColourEncoder()
    other.fingerprint = "d" * 64
    monkeypatch.setattr("scanonce.search.examples.load_encoder", lambda *_, **__: other)
    with pytest.raises(ManifestMismatch):
        engine.search("", examples=[red])


# --- Still images in the guarded child ---


def still(path: Path) -> NDArray[np.uint8]:
    (events,) = decode(path, request=make_request(is_still=True))
    assert isinstance(events[-1], Finished), events
    (frames,) = [each for each in events if isinstance(each, Frames)]
    image: NDArray[np.uint8] = frames.images[0]
    assert image.shape == (*STEPS.output_size, 3)
    return image


def test_an_image_is_shown_upright(tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    image = still(tmp_path / "turned.jpg")
    assert image[:, :24].max() < 30
    assert image[:, 40:].min() > 220


def test_transparent_parts_are_white_and_16_bits_are_read(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 48), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert still(tmp_path / "clear.png").min() == 255
    Image.fromarray(np.full((48, 64), 200 << 8, np.uint16)).save(tmp_path / "deep.png")
    assert set(np.unique(still(tmp_path / "deep.png"))) == {200}


def test_an_animation_gives_its_first_image(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (64, 48), COLOURS[name]) for name in ("red", "blue"))
    first.save(tmp_path / "moves.gif", save_all=True, append_images=[second], duration=500)
    red, _, blue = still(tmp_path / "moves.gif").mean(axis=(0, 1))
    assert red > 150 > 100 > blue


def test_other_formats_of_the_library_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.tiff")
    (events,) = decode(tmp_path / "a.tiff", request=make_request(is_still=True))
    (failed,) = events
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("not an image")
    assert not failed.transient


def test_the_first_bytes_tell_images_from_films(layout: IndexLayout, tmp_path: Path) -> None:
    for ending in FORMATS:
        assert is_still(picture(tmp_path / f"a.{ending}", "red").read_bytes()[:12])
    film = layout.root.parent / "films" / "red.mp4"
    assert not is_still(film.read_bytes()[:12])
    assert MAX_PIXELS < 2**28


def test_the_indexer_takes_no_photos_for_videos(tmp_path: Path) -> None:
    picture(tmp_path / "films.png", "red").rename(tmp_path / "photo.mp4")
    (events,) = decode(tmp_path / "photo.mp4")
    assert isinstance(events[-1], Failed)
