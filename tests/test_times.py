"""Found times are those on the screen: pictures that are held, at any rate, for every localiser."""

from collections.abc import Callable
from dataclasses import astuple
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scanonce.indexer.settings import IndexerSettings
from scanonce.media.cut import probe, write_proxy
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.soonet.trained import BUNDLED_LOCALISER, TrainedLocaliser, load_localiser
from scanonce.search.engine import SearchEngine
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Span
from scanonce.training.world.drawing import Painter
from scanonce.training.world.films import film_frames, random_library
from scanonce.training.world.words import scene_captions
from scanonce.ui.export_files import pick_of
from tests.colours import COLOURS
from tests.indexes import build_index, open_engine, read_videos
from tests.slides import FADE_SECONDS, Slides, write_at_rate, write_changes
from tests.videos import write_video

STEP_SECONDS = 0.5
_FLAT = [np.full((48, 64, 3), rgb, np.uint8) for rgb in COLOURS.values()]

Write = Callable[[Path, Slides], Path]
WRITERS: dict[str, Write] = {
    "changes": write_changes,
    **{
        f"{rate} fps": lambda path, slides, rate=Fraction(rate): write_at_rate(path, slides, rate)  # type: ignore[misc]
        for rate in ("1/30", "1/10", "1/2", "1", "2")
    },
}


def found(engine: SearchEngine, text: str) -> Span:
    return engine.search(text).moments[0].span


def assert_inside(span: Span, slides: Slides, number: int) -> None:
    """A found edge is at most a sampling step outside of the time for which a slide is on screen."""
    fade = FADE_SECONDS if slides.fades else 0.0
    begin, end = number * slides.seconds, (number + 1) * slides.seconds
    assert span.start_seconds >= begin - fade - STEP_SECONDS
    assert span.end_seconds <= end + STEP_SECONDS


def assert_exact(span: Span, slides: Slides, number: int) -> None:
    """The found edges are at most a sampling step from those of a slide."""
    assert_inside(span, slides, number)
    fade = FADE_SECONDS if slides.fades else 0.0
    assert span.start_seconds <= number * slides.seconds + STEP_SECONDS
    assert span.end_seconds >= (number + 1) * slides.seconds - fade - STEP_SECONDS


@pytest.mark.parametrize("fades", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_each_slide_is_found_where_it_is_on_screen(
    tmp_path: Path, writer: str, fades: bool
) -> None:
    # changes may come between two targets, pictures of a constant rate where they are
    slides = Slides(_FLAT, 30.3 if writer == "changes" else 30.0, fades)
    WRITERS[writer](tmp_path / "films" / "slides.mp4", slides)
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    (video,) = read_videos(layout)
    assert video.duration_seconds == pytest.approx(slides.end_seconds, abs=0.1)
    for localiser, check in (("training-free", assert_exact), ("clips", assert_inside)):
        with open_engine(layout, localiser=localiser) as engine:
            for number, colour in enumerate(COLOURS):
                check(found(engine, colour), slides, number)


def test_a_picture_that_is_held_is_stored_once(tmp_path: Path) -> None:
    write_changes(tmp_path / "films" / "slides.mp4", Slides(_FLAT, 30.0))
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    assert [video.num_frames for video in read_videos(layout)] == [len(_FLAT)]


def test_key_frames_are_found_where_they_are_on_screen(tmp_path: Path) -> None:
    slides = Slides(_FLAT, 30.0)
    write_at_rate(tmp_path / "films" / "slides.mp4", slides, Fraction(1, 30), group=1)
    layout = IndexLayout(tmp_path / "index")
    settings = IndexerSettings(decode_workers=1, sampling="keyframes")
    build_index(layout, tmp_path / "films", settings=settings)
    with open_engine(layout) as engine:
        for number, colour in enumerate(COLOURS):
            assert_exact(found(engine, colour), slides, number)


# ---------------------------------------------------------------- the bundled models


@cache
def bundled() -> tuple[ClipEncoder, TrainedLocaliser]:
    return load_encoder(BUNDLED_NAME), load_localiser(BUNDLED_LOCALISER)


def drawn_slides(seconds: float, fades: bool) -> tuple[Slides, list[str]]:
    """Return stills of a film and a sentence for each."""
    (film,) = random_library(11, 1, scenes_each=(6, 6))
    middles = [(a + b) // 2 for a, b in zip(film.first_frames, film.first_frames[1:], strict=False)]
    images = [
        np.asarray(image) for image in film_frames(film, middles, painter=Painter((320, 180)))
    ]
    rng = np.random.default_rng(0)
    texts = [scene_captions(scene, rng)[0].text for scene in film.scenes]
    return Slides(images, seconds, fades), texts


def test_moments_of_a_recording_do_not_depend_on_how_often_pictures_are_repeated(
    tmp_path: Path,
) -> None:
    encoder, trained = bundled()
    spans: dict[str, list[Span]] = {"auto": [], "training-free": []}
    for writer, fades in (("2 fps", False), ("changes", True), ("1/30 fps", False)):
        slides, texts = drawn_slides(30.0, fades)
        folder = tmp_path / f"{fades} {writer.replace('/', ' in ')}"
        WRITERS[writer](folder / "films" / "slides.mp4", slides)
        layout = IndexLayout(folder / "index")
        build_index(layout, folder / "films", encoder=encoder, localiser=trained)
        for localiser, answers in spans.items():
            with open_engine(layout, encoder, localiser=localiser) as engine:
                answers += [found(engine, text) for text in texts]
            for number, span in enumerate(answers[-len(texts) :]):
                assert_inside(span, slides, number)
    for answers in spans.values():
        first, *others = np.array_split(np.array([astuple(span) for span in answers]), 3)
        for other in others:
            np.testing.assert_allclose(other, first, atol=STEP_SECONDS)


# ---------------------------------------------------------------- claims and clocks of files


DAY = 86_000
"""Seconds, just below a gap that counts as damage."""
BOMBS: dict[str, list[int]] = {
    "one gap.mp4": [0, 1, DAY],
    "one gap.mkv": [0, 1, DAY],
    "days.mp4": [k * DAY for k in range(6)],
    "days.mkv": [k * DAY for k in range(6)],
    "minutes.mp4": [60 * k for k in range(60)],
    "jumps.ts": [k * DAY for k in range(6)],
    "jumps.flv": [0, 1, DAY, DAY + 1],
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_few_bytes_that_claim_days_cost_what_they_hold_and_say_so(
    tmp_path: Path, name: str
) -> None:
    pts = BOMBS[name]
    options = {"bf": "0"}
    codec = "flv" if name.endswith("flv") else "libx264"
    films = tmp_path / "films"
    films.mkdir()
    video = write_video(
        films / name, pts=pts, time_base=Fraction(1, 1), options=options, codec=codec
    ).path
    layout = IndexLayout(tmp_path / "index")
    localiser = load_localiser(BUNDLED_LOCALISER)
    encoder = load_encoder(BUNDLED_NAME)
    report = build_index(layout, films, encoder=encoder, localiser=localiser)
    (known,) = read_videos(layout)
    allowed = 20_000 * (video.stat().st_size / 1e6 + 0.2)  # clips
    assert sum(read_manifest(layout).grid.counts(known.duration_seconds)) <= allowed + 3
    assert 0 < known.num_frames <= len(pts)
    (thumbnails,) = (each.stat().st_size for each in layout.folder.rglob("thumbnails/**/*.safe*"))
    assert thumbnails < 4000 * len(pts)
    size = sum(each.stat().st_size for each in layout.folder.rglob("*") if each.is_file())
    assert size < 12e6
    claimed = sum(b - a for a, b in pairwise(pts))
    if name.endswith(".ts"):  # a jump of the clock of a recording is none of the pictures
        assert known.duration_seconds < 60
    elif claimed > 5000:
        (problem,) = report.problems
        assert "far longer than its size allows" in problem.reason
    else:
        assert report.problems == ()
    progress: list[float] = []
    write_proxy(
        video,
        tmp_path / "proxy.mp4",
        end_seconds=known.duration_seconds,
        progress=progress.append,
    )
    assert probe(tmp_path / "proxy.mp4").duration_seconds <= known.duration_seconds + 1
    assert max(progress, default=0.0) <= known.duration_seconds


def test_an_hour_of_slides_is_indexed_whole(tmp_path: Path) -> None:
    slides = Slides(_FLAT, 720.0)
    write_at_rate(tmp_path / "films" / "slides.mp4", slides, Fraction(1, 30))
    report = build_index(IndexLayout(tmp_path / "index"), tmp_path / "films")
    assert report.problems == ()
    assert report.counts.video_seconds == pytest.approx(3600.0)


def test_the_catalogue_knows_the_first_frame_on_the_clock_of_players(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "late.mkv", pts=list(range(60, 90)), with_audio=True, options={"bf": "0"}
    )
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, video.path)
    (known,) = read_videos(layout)
    assert known.info is not None
    assert known.info.offset_seconds == pytest.approx(2.0, abs=0.15)
    assert pick_of(known, Span(0.0, 1.0), "it").played.start_seconds == known.info.offset_seconds
