"""Moments far from a camera's own past: the arithmetic, rendered images, and the command."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.vectors import unit
from scanonce.search.unusual import UNUSUAL, Clips, deviations, distances, find_unusual, moments
from scanonce.storage.errors import QueryError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from scanonce.training.world.scene import SceneSpec, draw_image
from tests.colours import write_film
from tests.command import scanonce
from tests.indexes import build_index

NUM = 60


def camera(embeddings: np.ndarray, *, clips_each: int = 10) -> Clips:
    """Clips of 4 s, one after another, in videos of ``clips_each``."""
    numbers = np.arange(len(embeddings))
    starts = 4.0 * (numbers % clips_each)
    return Clips(unit(embeddings), np.stack([starts, starts + 4.0], 1), numbers // clips_each)


def noise(seed: int = 0, num: int = NUM) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([1.0, 0, 0, 0, 0, 0, 0, 0]) + 0.05 * rng.normal(size=(num, 8))


def test_a_clip_apart_is_the_only_unusual_one() -> None:
    rows = noise()
    rows[47] = [0, 1.0, 0, 0, 0, 0, 0, 0]
    clips = camera(rows)
    (first, *others) = moments(clips, deviations(distances(clips)))
    assert first[:2] == (4, Span(28, 32))
    assert first[2] > 3 * UNUSUAL
    assert all(score < first[2] / 3 for _, _, score in others)


def test_only_the_past_counts() -> None:
    rows = noise()
    apart = np.array([0, 1.0, 0, 0, 0, 0, 0, 0])
    rows[[45, 51, 52, 53]] = apart
    found = distances(camera(rows))
    assert found[45] > 0.5, "its likes come later"
    assert found[53] > 0.5, (
        "three look-alikes make something usual, and 51 and 52 are of the same minute"
    )
    rows[[37, 38, 39]] = apart
    assert distances(camera(rows))[53] < 1e-6
    assert np.isnan(found[:32]).all()
    assert np.isfinite(found[40:]).all()


def test_an_event_that_goes_on_is_one_moment() -> None:
    rows = noise()
    rows[44:48] = [0, 1.0, 0, 0, 0, 0, 0, 0]
    clips = camera(rows)
    ((video, span, _),) = moments(clips, deviations(distances(clips)))
    assert (video, span) == (4, Span(16, 32))


def test_the_order_of_batches_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = camera(noise(3))
    whole = distances(clips)
    monkeypatch.setattr("scanonce.search.unusual._BATCH", 7)
    np.testing.assert_allclose(distances(clips), whole, rtol=1e-5, atol=1e-7)


def test_a_long_past_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.search.unusual._MOST_PAST", 40)
    rows = noise(4, 200)
    rows[180] = [0, 1.0, 0, 0, 0, 0, 0, 0]
    clips = camera(rows)
    (first, *_) = moments(clips, deviations(distances(clips)))
    assert first[:2] == (18, Span(0, 4))


def test_a_camera_that_shows_nothing_new_has_no_unusual_moment() -> None:
    clips = camera(np.tile(noise()[:1], (NUM, 1)))
    assert moments(clips, deviations(distances(clips))) == []
    assert deviations(np.full(3, np.nan)).shape == (3,)
    none = camera(np.empty((0, 8)))
    assert moments(none, deviations(distances(none))) == []


def test_a_rare_thing_of_the_rendered_world_stands_out() -> None:
    usual = SceneSpec("car", "red", "city", "day", 1, "nothing", 12, 0)
    scenes = [replace(usual, seed=seed, count=1 + seed % 3) for seed in range(NUM)]
    scenes[50] = replace(usual, thing="boat", place="sea", seed=99)
    images = np.stack([draw_image(each, (96, 96)) for each in scenes])
    encoder = load_encoder(BUNDLED_NAME, towers="vision")
    clips = camera(encoder.encode_frames(images))
    (first, *_) = moments(clips, deviations(distances(clips)))
    assert (first[0], first[1]) == (5, Span(0, 4))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    """A camera with two minutes of black and white and one green piece, and another one that is green."""
    films = tmp_path_factory.mktemp("cameras") / "films"
    usual = [("black", 4.0), ("white", 4.0)] * 10
    write_film(films / "door" / "z-first.mp4", usual)
    write_film(films / "door" / "a-second.mp4", [("white", 30), ("green", 6), ("black", 30)])
    write_film(films / "yard" / "green.mp4", [("green", 20)])
    for number, name in enumerate(("z-first.mp4", "a-second.mp4")):
        os.utime(films / "door" / name, (1e9 + number, 1e9 + number))
    layout = IndexLayout(films.parent / "index")
    build_index(layout, films)
    return layout


def test_a_folder_is_a_camera_and_its_files_come_in_the_order_of_time(layout: IndexLayout) -> None:
    door = layout.root.parent / "films" / "door"
    with Index.open(layout, open_pooling, read_only=True) as index:
        (only,) = find_unusual(index, door)
        assert only.path.name == "a-second.mp4"
        assert only.span.tiou(Span(30, 36)) > 0.4
        assert find_unusual(index, door.parent / "yard") == [], "it has too short a past"
        with pytest.raises(QueryError, match="no video of the index is at or below"):
            find_unusual(index, door / "none")


def test_the_command_prints_moments(layout: IndexLayout) -> None:
    door = layout.root.parent / "films" / "door"
    run = scanonce("unusual", "--in", door, "--index", layout.root, "--json")
    (line,) = run.stdout.splitlines()
    found = json.loads(line)
    assert Path(found["path"]).name == "a-second.mp4"
    assert found["deviations"] >= UNUSUAL
    shown = scanonce("unusual", "--in", door, "--index", layout.root).stdout
    assert "a-second.mp4" in shown
    assert "1 unusual moment" in shown
    missing = scanonce("unusual", "--in", door / "none", "--index", layout.root)
    assert missing.returncode == 1
    assert "no video of the index" in missing.stderr
