"""Near-duplicates: alignment of frames, pictures that are alike, and whole libraries."""

import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.vectors import unit
from scanonce.search.alignment import Limits, Run, align, best_run, diagonals
from scanonce.search.duplicates import Duplicate, Match, find_duplicates
from scanonce.search.filters import Filter
from scanonce.search.looks import correlations, is_same_picture, look_of, normalised, without_bars
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span, Video, VideoInfo
from tests.colours import COLOURS, write_film
from tests.command import scanonce
from tests.indexes import build_index
from tests.videos import write_images

LIMITS = Limits()
DIM = 24
Frames = NDArray[np.float32]


def moving(seed: int, length: int) -> Frames:
    """Frames of a video in which every frame is somewhat like the one before it."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((length, DIM))
    walk = np.empty_like(steps)
    walk[0] = steps[0]
    for k in range(1, length):
        walk[k] = 0.8 * walk[k - 1] + 0.6 * steps[k]
    return unit(walk)


def cut(seed: int, lengths: Sequence[int]) -> Frames:
    """Frames of a video of still shots of these lengths."""
    shots = unit(np.random.default_rng(seed).standard_normal((len(lengths), DIM)))
    return np.repeat(shots, lengths, axis=0)


def noisy(frames: Frames, seed: int, share: float = 0.25) -> Frames:
    """The same frames, as another encoding changes them."""
    noise = unit(np.random.default_rng(seed).standard_normal(frames.shape))
    return unit(frames + share * noise)


# ---------------------------------------------------------------- alignment


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    before=st.integers(0, 30),
    length=st.integers(20, 80),
    after=st.integers(0, 30),
    slip=st.integers(-LIMITS.reach, LIMITS.reach),
    is_cut=st.booleans(),
)
def test_an_excerpt_is_found_at_its_place(
    seed: int, before: int, length: int, after: int, slip: int, is_cut: bool
) -> None:
    """Of moving and of still shots, at both sides of a guess; ends are exact to a frame or two."""
    num = before + length + after
    whole = cut(seed, [4, 9, 7, 5, 6, 8] * (num // 39 + 1))[:num] if is_cut else moving(seed, num)
    excerpt = noisy(whole[before : before + length], seed)
    (run,) = align(whole, excerpt, [slip - before], LIMITS)
    assert run.offset == -before
    assert abs(run.start - before) <= 2
    assert abs(run.end - before - length) <= 2
    assert run.likeness > 0.9


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), offset=st.integers(-40, 40))
def test_different_videos_share_nothing(seed: int, offset: int) -> None:
    assert align(moving(seed, 60), moving(seed + 20_000, 60), [offset], LIMITS) == []
    assert align(cut(seed, [9] * 6), cut(seed + 20_000, [9] * 6), [offset], LIMITS) == []


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    first=st.integers(10, 80),
    second=st.integers(10, 80),
    offset=st.integers(-40, 40),
)
def test_still_pictures_are_no_proof(seed: int, first: int, second: int, offset: int) -> None:
    """A black screen, a logo, a fixed camera: every diagonal is as good as every other."""
    still = cut(seed, [200])
    one, other = noisy(still[:first], 1, 0.1), noisy(still[:second], 2, 0.1)
    assert align(one, other, [offset], LIMITS) == []
    assert align(still[:first], still[:second], [offset], LIMITS) == []


def test_one_cut_is_proof_for_the_still_pictures_around_it() -> None:
    film = cut(3, [30, 30])
    (run,) = align(film, noisy(film[10:50], 1), [-10], LIMITS)
    assert (run.start, run.end, run.offset) == (10, 50, -10)


def test_a_repeated_loop_does_not_say_where_it_is() -> None:
    loop = np.tile(moving(4, 8), (10, 1))
    assert align(loop, loop[16:40], [-16], LIMITS) == []


def test_two_excerpts_of_one_film_are_two_runs_in_order() -> None:
    film, other = moving(5, 120), moving(6, 40)
    mixed = np.concatenate([film[80:110], other, film[10:40]])
    runs = align(film, mixed, [60, -80], LIMITS)
    assert [run.offset for run in runs] == [60, -80]
    assert abs(runs[0].start - 10) <= 2
    assert abs(runs[1].start - 80) <= 2
    assert runs[0].end <= runs[1].start


def test_a_guess_far_away_and_a_run_that_is_too_short_find_nothing() -> None:
    film = moving(7, 100)
    assert align(film, film, [LIMITS.reach + LIMITS.far + 5], LIMITS) == []
    assert align(film, film[:5], [0], LIMITS) == []
    assert align(film, film, [500], LIMITS) == []
    assert align(film, film, [], LIMITS) == []
    assert align(film[:0], film, [0], LIMITS) == []
    assert align(film, film[:0], [0], LIMITS) == []


def test_the_same_run_is_not_found_twice() -> None:
    film = moving(8, 60)
    assert len(align(film, film, [0, 1, -1], LIMITS)) == 1


@given(seed=st.integers(0, 1000), offset=st.integers(-12, 12))
def test_diagonals_are_those_of_the_matrix(seed: int, offset: int) -> None:
    first, second = moving(seed, 9), moving(seed + 1, 7)
    matrix = first @ second.T
    (row,) = diagonals(first, second, np.array([offset]))
    for i in range(9):
        if 0 <= i + offset < 7:
            assert row[i] == pytest.approx(matrix[i, i + offset], abs=1e-5)
        else:
            assert np.isnan(row[i])


@given(st.lists(st.floats(-5, 5, width=32) | st.just(float("nan")), min_size=1, max_size=12))
def test_the_best_run_is_that_of_all_runs(values: list[float]) -> None:
    start, end, gain = best_run(np.array(values, np.float32))
    sums = [
        sum(values[a:b])
        for a in range(len(values))
        for b in range(a + 1, len(values) + 1)
        if not any(np.isnan(values[a:b]))
    ]
    if sums:
        assert gain == pytest.approx(max(sums), abs=1e-6)
        assert sum(values[start:end]) == pytest.approx(gain, abs=1e-6)
    else:
        assert gain < -1e5


def test_two_shots_of_one_still_picture_that_begin_and_end_together_are_no_proof() -> None:
    shared, *others = cut(10, [1] * 5)
    first = np.repeat([others[0], shared, others[1]], [9, 20, 9], axis=0)
    second = np.repeat([others[2], shared, others[3]], [7, 20, 12], axis=0)
    assert align(first, second, [-2], LIMITS) == []


def test_a_video_is_all_of_itself() -> None:
    film = moving(9, 50)
    (run,) = align(film, film, [0], LIMITS)
    assert run == Run(0, 50, 0, 1.0, run.distinctness)
    assert 0.3 < run.distinctness < 1.0


# ---------------------------------------------------------------- looks


def picture(seed: int, size: tuple[int, int] = (135, 240)) -> NDArray[np.float32]:
    """A picture of some large features, not symmetric."""
    small = np.random.default_rng(seed).uniform(40, 255, (5, 8)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def jpeg(grey: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def framed(grey: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    return np.pad(grey, ((rows, rows), (columns, columns)), constant_values=8.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_is_known_in_other_light_size_and_frame(seed: int) -> None:
    whole = look_of(jpeg(picture(seed)))
    assert whole is not None
    for other in (
        picture(seed) * 0.7 + 30,
        picture(seed, (60, 107)),
        framed(picture(seed), 30, 0),
        framed(picture(seed), 0, 40),
    ):
        look = look_of(jpeg(other))
        assert look is not None
        straight, mirrored = correlations([(whole, look)])
        assert straight > 0.95 > mirrored
        assert is_same_picture([(whole, look)], 0.7)


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_picture_and_another_one_are_not_the_same(seed: int) -> None:
    whole, mirrored, other = (
        normalised(each) for each in (picture(seed), picture(seed)[:, ::-1], picture(seed + 50))
    )
    assert whole is not None
    assert mirrored is not None
    assert other is not None
    assert not is_same_picture([(whole, mirrored)], 0.7)
    assert not is_same_picture([(whole, other)], 0.7)


def test_black_flat_and_damaged_pictures_have_no_look() -> None:
    assert look_of(jpeg(np.full((90, 160), 5.0, np.float32))) is None
    assert look_of(jpeg(np.full((90, 160), 130.0, np.float32))) is None
    assert look_of(b"\xff\xd8 no picture") is None
    assert look_of(jpeg(picture(1))[:300]) is None
    assert look_of(jpeg(picture(1, (20, 2000)))) is None


def test_only_bars_at_both_edges_are_cut_off() -> None:
    grey = picture(2)
    assert without_bars(framed(grey, 12, 7)).shape == grey.shape
    below = np.pad(grey, ((0, 40), (0, 0)))  # a dark floor
    assert without_bars(below).shape == below.shape


# ---------------------------------------------------------------- videos


def video(number: int, seconds: float, size: tuple[int, int] = (640, 360), kb: int = 9) -> Video:
    info = VideoInfo(seconds, *size, 25.0, "h264")
    path = Path(f"/films/{number}.mp4")
    return Video(number, f"{number}", "indexed", seconds, 9, (path,), info=info, size_bytes=kb)


@pytest.mark.parametrize(
    ("first", "second", "lesser"),
    [
        (video(1, 60), video(2, 40), 2),
        (video(1, 40), video(2, 60), 1),
        (video(1, 60), video(2, 60.4, (1280, 720)), 1),
        (video(1, 60, kb=10), video(2, 60, kb=9), 2),
        (video(1, 60), video(2, 60), 2),
    ],
)
def test_the_lesser_video_is_shorter_or_else_smaller(
    first: Video, second: Video, lesser: int
) -> None:
    match = Match(Span(0, 30), Span(5, 35), 0.9)
    pair = Duplicate(first, second, (match,))
    assert pair.lesser.video_id == lesser
    assert pair.covered == pytest.approx(30 / pair.lesser.duration_seconds)


# ---------------------------------------------------------------- libraries

SCENES = [("red", 4), ("green", 5), ("blue", 3), ("white", 6), ("black", 4), ("red", 3)]
OTHER = [("blue", 6), ("green", 5), ("white", 4), ("blue", 5), ("black", 4), ("green", 6)]
"""No colour follows another one as in the film."""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    """A film, a longer cut of it at another frame rate, an excerpt, another film, and still ones."""
    root = tmp_path_factory.mktemp("duplicates")
    films = root / "films"
    write_film(films / "film.mp4", SCENES)
    write_film(films / "longer.mp4", [("black", 3), *SCENES, ("white", 7)], fps=8)
    write_film(films / "excerpt.mp4", [("green", 2), ("blue", 3), ("white", 5)])
    write_film(films / "other.mp4", OTHER)
    for number in range(2):
        write_film(films / "still" / f"{number}.mp4", [("black", 20 + number)])
    layout = IndexLayout(root / "index")
    build_index(layout, films)
    return layout


def find(layout: IndexLayout, only: Filter | None = None) -> dict[frozenset[str], Duplicate]:
    with Index.open(layout, open_pooling, read_only=True) as index:
        return {
            frozenset((each.first.path.stem, each.second.path.stem)): each
            for each in find_duplicates(index, within=only)
        }


def test_copies_and_excerpts_are_found_with_their_spans(layout: IndexLayout) -> None:
    found = find(layout)
    assert set(found) == {
        frozenset(("film", "longer")),
        frozenset(("film", "excerpt")),
        frozenset(("longer", "excerpt")),
    }
    pair = found[frozenset(("film", "longer"))]
    (match,) = pair.matches
    shift = match.second.start_seconds - match.first.start_seconds
    assert abs(shift) == pytest.approx(3.0, abs=0.5)
    assert match.first.duration_seconds == pytest.approx(25.0, abs=1.0)
    assert pair.lesser.path.stem == "film"
    assert pair.covered > 0.9
    assert found[frozenset(("film", "excerpt"))].shared_seconds == pytest.approx(10.0, abs=1.0)


def test_a_filter_leaves_only_pairs_of_which_both_pass(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    assert set(find(layout, Filter(min_seconds=20.0))) == {frozenset(("film", "longer"))}
    assert find(layout, Filter(folders=(films / "still",))) == {}


def test_a_video_without_features_costs_only_its_own_pairs(
    layout: IndexLayout, caplog: pytest.LogCaptureFixture
) -> None:
    with Index.open(layout, open_pooling, read_only=True) as index:
        (uid,) = (each.uid for each in index.catalog.videos() if each.path.stem == "excerpt")
        (path,) = index.layout.features.rglob(f"{uid}*")
        kept = path.read_bytes()
        path.unlink()
    try:
        with caplog.at_level(logging.WARNING, "scanonce"):  # other tests set levels of their own
            assert set(find(layout)) == {frozenset(("film", "longer"))}
    finally:
        path.write_bytes(kept)
    assert caplog.text.count("excerpt.mp4 is not compared") == 1
    caplog.clear()


def test_the_command_prints_pairs_and_labels_the_lesser_ones(layout: IndexLayout) -> None:
    where = ("--index", layout.root)
    ran = scanonce("duplicates", "--json", "--apply-label", "copy", *where)
    assert ran.returncode == 0, ran.stderr
    pairs = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(pairs) == 3
    assert set(pairs[0]) == {
        *("first", "second", "likeness", "shorter_or_smaller", "covered", "matches"),
    }
    labelled = json.loads(scanonce("label", "--json", *where).stdout)
    assert labelled == {"labels": {"copy": 2}}
    shown = scanonce("duplicates", "--exclude-label", "copy", *where).stdout
    assert shown.splitlines() == ["0 pairs of near-duplicates."]
    assert "film.mp4" in scanonce("duplicates", *where).stdout


def write_shaded(path: Path, *, is_mirrored: bool, fps: int = 10) -> None:
    """Write the scenes with light from one side: the encoder sees the same colours in the mirror image."""
    light = np.linspace(1.0, 0.2, 64)[:: -1 if is_mirrored else 1]
    images = (
        (light[None, :, None] * np.full((48, 1, 3), COLOURS[colour])).astype(np.uint8)
        for colour, seconds in SCENES
        for _ in range(seconds * fps)
    )
    write_images(path, images, fps=fps, options={"preset": "ultrafast"})


def test_a_mirrored_copy_is_no_duplicate(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_shaded(films / "film.mp4", is_mirrored=False)
    write_shaded(films / "copy.mp4", is_mirrored=False, fps=8)
    write_shaded(films / "mirrored.mp4", is_mirrored=True)
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, films)
    assert set(find(layout)) == {frozenset(("film", "copy"))}


def test_an_empty_index_has_no_duplicates(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    assert find(layout) == {}
