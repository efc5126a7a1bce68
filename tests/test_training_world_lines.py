"""Signs and speech of the rendered world: their truth is exact, and films without them stay as they are."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from scanonce.training.world.films import (
    AUDIO_RATE,
    FilmSpec,
    compose_audio,
    film_frames,
    random_library,
)
from scanonce.training.world.lines import (
    LineLibrary,
    WorldLine,
    audio_with_speech,
    draw_sign,
    frames_with_signs,
    render_with_lines,
    scene_text,
    with_lines,
)
from scanonce.training.world.scene import FILM_SIZE, SceneSpec


def scene(frames: int, *, colour: str = "red", seed: int = 1) -> SceneSpec:
    return SceneSpec("car", colour, "city", "day", 1, "nothing", frames, seed)


FILM = FilmSpec((scene(10), scene(10, colour="blue")), ("cut",), 3)
SIGN = WorldLine("written", 0, 1, "Mind the gap", "mind the gap", 0.4, 0.8)


def test_a_sign_is_in_the_frames_of_its_scene_and_in_no_other() -> None:
    plain, signed = list(film_frames(FILM)), list(frames_with_signs(FILM, [SIGN]))
    changed = [one.tobytes() != other.tobytes() for one, other in zip(plain, signed, strict=True)]
    assert changed == [False] * 10 + [True] * 10


@pytest.mark.parametrize("text", ["The End", "Swimming Pool", "Book Fair 1998"])
def test_a_sign_is_whole_inside_the_image(text: str) -> None:
    grey = Image.new("RGB", FILM_SIZE, (128, 128, 128))
    for seed in range(20):
        changed = np.asarray(draw_sign(grey, text, seed)) != np.asarray(grey)
        rows, columns = changed.any(axis=(1, 2)), changed.any(axis=(0, 2))
        assert not rows[[0, -1]].any()
        assert not columns[[0, -1]].any()
        assert columns.sum() > rows.sum() > 20


@pytest.fixture(scope="module")
def spoken() -> LineLibrary:
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    return with_lines(random_library(5, 2, held_out=True), seed=5)


def test_each_line_is_inside_its_scene_and_only_twins_share_words(spoken: LineLibrary) -> None:
    lines = spoken.lines
    for line in lines:
        film = spoken.films[line.film]
        start, end = (each / 25 for each in film.first_frames[line.scene : line.scene + 2])
        assert start <= line.start_seconds < line.end_seconds <= end
    assert {line.track for line in lines} == {"said", "written"}
    once = [line.words for line in lines if not line.is_twin]
    assert len(once) == len(set(once))
    twins = [line for line in lines if line.is_twin]
    assert twins
    for words in {line.words for line in twins}:
        first, second = [line for line in twins if line.words == words]
        things = [spoken.films[line.film].scenes[line.scene].thing for line in (first, second)]
        assert things[0] != things[1]


def test_speech_is_where_the_truth_says_and_the_tune_goes_on_elsewhere(
    spoken: LineLibrary,
) -> None:
    line = next(each for each in spoken.lines if each.track == "said")
    film = spoken.films[line.film]
    tune, audio = compose_audio(film), audio_with_speech(film, [line])
    apart = np.flatnonzero(np.abs(tune - audio) > 0.01) / AUDIO_RATE
    assert apart[0] == pytest.approx(line.start_seconds, abs=0.1)
    assert apart[-1] == pytest.approx(line.end_seconds, abs=0.1)


def test_films_with_words_are_rendered_once(tmp_path: Path) -> None:
    short = LineLibrary((FILM,), (SIGN,), 0)
    (path,) = render_with_lines(short, tmp_path, workers=1)
    before = path.stat().st_mtime_ns
    assert render_with_lines(short, tmp_path, workers=1) == [path]
    assert path.stat().st_mtime_ns == before
    with av.open(str(path)) as film:
        assert film.streams.video[0].frames == 20
        assert len(film.streams.audio) == 1


def test_a_scene_is_named_by_what_is_seen() -> None:
    assert scene_text(scene(10)) == "a red car"
    assert (
        scene_text(SceneSpec("bird", "blue", "sea", "day", 2, "nothing", 10, 1)) == "two blue birds"
    )
