"""The rendered world: contents of its images, facts of its captions, and its films."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from scanonce.training.world.drawing import Painter
from scanonce.training.world.films import (
    FilmSpec,
    compose_audio,
    film_frames,
    film_views,
    ground_truth,
    random_library,
    render_film,
    render_library,
)
from scanonce.training.world.scene import (
    COLOURS,
    FRAMES_PER_SECOND,
    HAPPENINGS,
    HOME,
    LIGHTS,
    PLACES,
    SHIFTED,
    THINGS,
    SceneSpec,
    World,
    draw_image,
    is_held_out,
    random_scene,
    view_at,
)
from scanonce.training.world.things import draw_sprite
from scanonce.training.world.words import FACTS, image_caption, scene_captions, true_facts

SMALL = (160, 90)


def scene(**changes: object) -> SceneSpec:
    """A red car on a farm by day, in which nothing happens, with these changes."""
    plain = SceneSpec("car", "red", "farm", "day", 1, "nothing", num_frames=100, seed=5)
    return replace(plain, **changes)  # type: ignore[arg-type]


def some_scenes(number: int, *, seed: int = 0, happening: str | None = None) -> list[SceneSpec]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, happening=happening) for _ in range(number)]


def test_a_quarter_of_all_pairs_is_held_out_evenly() -> None:
    held_out = np.array([[is_held_out(t, c) for c in COLOURS] for t in THINGS])
    assert held_out.mean() == 0.25
    assert set(held_out.sum(axis=0)) == {3}
    assert set(held_out.sum(axis=1)) == {2, 3}


@pytest.mark.parametrize("held_out", [False, True])
def test_scenes_keep_to_their_side_of_the_held_out_pairs(held_out: bool) -> None:
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng, held_out=held_out) for _ in range(300)]
    assert all(is_held_out(s.thing, s.colour) is held_out for s in scenes)


@pytest.mark.parametrize(
    ("thing", "colours"),
    [
        *((thing, COLOURS) for thing in THINGS),
        ("fish", SHIFTED.colours),
        ("house", SHIFTED.colours),
    ],
)
def test_every_thing_looks_different_in_every_colour(thing: str, colours: tuple[str, ...]) -> None:
    sprites = [np.asarray(draw_sprite(thing, colour, "day"), np.int16) for colour in colours]
    for number, first in enumerate(sprites):
        assert (first[..., 3] > 0).mean() > 0.2
        for second in sprites[number + 1 :]:
            assert np.abs(first - second).mean() > 3


@pytest.mark.parametrize("place", [p for p in (*PLACES, *SHIFTED.places) if p != "space"])
def test_light_changes_the_image_of_every_place(place: str) -> None:
    means = {light: draw_image(scene(place=place, light=light), SMALL).mean() for light in LIGHTS}
    assert means["night"] < 0.6 * means["day"]
    assert means["rain"] < 0.9 * means["day"]


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def test_the_home_world_has_not_changed() -> None:
    """Recorded figures and the bundled checkpoints belong to exactly these films."""
    films = random_library(3, 4)
    assert digest(repr(films).encode()) == "b65ba8f4e47311d8d95ea12c"
    lines = [asdict(line) for line in ground_truth(films, seed=3)]
    assert digest(json.dumps(lines).encode()) == "ba169dede375caa2f5abf216"
    (film,) = random_library(3, 1)
    frames = film_frames(film, [0, 150, 400], painter=Painter(SMALL))
    assert [digest(frame.tobytes()) for frame in frames] == [
        "f6b59c1c9a2df004d14e1831",
        "34407f432c3eaaabf4c2354f",
        "d08810f730bf4938e9265a9f",
    ]


def test_the_shifted_world_has_no_colour_and_no_place_of_the_home_world() -> None:
    assert not {*SHIFTED.colours, *SHIFTED.places} & {*HOME.colours, *HOME.places}
    assert not any(f"colour:{colour}" in FACTS for colour in SHIFTED.colours)
    for held_out in (False, True):
        films = random_library(1, 8, held_out=held_out, world=SHIFTED)
        scenes = [scene for film in films for scene in film.scenes]
        assert {scene.place for scene in scenes} == {*SHIFTED.places}
        assert {scene.colour for scene in scenes} == {*SHIFTED.colours}
        assert all(is_held_out(s.thing, s.colour) is held_out for s in scenes)


def test_far_places_look_different_from_each_other_and_from_those_at_home() -> None:
    images = {
        place: draw_image(scene(place=place, colour="grey"), SMALL).astype(int)
        for place in (*PLACES, *SHIFTED.places)
    }
    for place in SHIFTED.places:
        others = [image for other, image in images.items() if other != place]
        assert min(np.abs(images[place] - other).mean() for other in others) > 12


def test_an_image_has_the_wanted_size_and_is_drawn_equally_twice() -> None:
    first, second = (draw_image(scene(), SMALL, seconds=1.0) for _ in range(2))
    assert first.shape == (90, 160, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("happening", "quantity", "sign"),
    [
        ("closer", "scale", 1),
        ("away", "scale", -1),
        ("rise", "y", -1),
        ("fall", "y", 1),
        ("left", "x", -1),
        ("right", "x", 1),
    ],
)
def test_a_motion_goes_the_way_its_name_says(happening: str, quantity: str, sign: int) -> None:
    for moving in some_scenes(20, happening=happening):
        ends = [view_at(moving, at).actors[0] for at in (0.0, moving.duration_seconds)]
        change = getattr(ends[1], quantity) - getattr(ends[0], quantity)
        assert sign * change > 0.08


@pytest.mark.parametrize(
    ("happening", "first", "last"),
    [
        ("night_falls", "day", "night"),
        ("day_breaks", "night", "day"),
        ("rain_starts", "day", "rain"),
        ("rain_stops", "rain", "day"),
    ],
)
def test_a_change_of_light_shows_both_its_ends(happening: str, first: str, last: str) -> None:
    for changing in some_scenes(5, happening=happening):
        assert f"light:{first}" in true_facts(changing, 0.0)
        assert f"light:{last}" in true_facts(changing, changing.duration_seconds)
        assert not any(fact.startswith("light:") for fact in true_facts(changing))


def test_others_join_one_by_one() -> None:
    for joining in some_scenes(10, happening="join"):
        times = np.linspace(0, joining.duration_seconds, 60)
        facts = [true_facts(joining, float(t)) for t in times]
        counts = [int(f[-1]) for row in facts for f in row if f.startswith("count:")]
        assert list(dict.fromkeys(counts)) == [1, 2, 3]


def test_light_is_never_named_in_space() -> None:
    floating = [s for s in some_scenes(400) if s.place == "space"]
    assert floating
    rng = np.random.default_rng(0)
    for one in floating:
        assert one.happening not in ("night_falls", "day_breaks", "rain_starts", "rain_stops")
        for caption in scene_captions(one, rng):
            assert not any(fact.startswith("light:") for fact in caption.facts)


def test_full_captions_name_everything_and_state_only_true_facts() -> None:
    rng = np.random.default_rng(2)
    for one in some_scenes(200):
        at = float(rng.uniform(0, one.duration_seconds))
        facts = true_facts(one, at)
        full = image_caption(facts, rng, full=True)
        kinds = ("thing", "colour", "place", "light", "count")
        assert full.facts == {f for f in facts if f.split(":")[0] in kinds}
        partial = image_caption(facts, rng)
        assert partial.facts <= facts
        assert not partial.needs_time


def test_only_captions_that_need_time_name_happenings() -> None:
    rng = np.random.default_rng(3)
    for one in some_scenes(200):
        captions = scene_captions(one, rng)
        assert captions
        for caption in captions:
            happens = f"happening:{one.happening}" in caption.facts
            assert caption.needs_time is happens
            assert one.happening != "nothing" or not caption.needs_time


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_a_caption_without_time_is_true_of_every_frame_of_its_scene(happening: str) -> None:
    rng = np.random.default_rng(4)
    for one in some_scenes(8, happening=happening):
        times = np.linspace(0, one.duration_seconds, 12)
        facts = [true_facts(one, float(t)) for t in times]
        for caption in scene_captions(one, rng):
            if not caption.needs_time:
                assert all(caption.facts <= row for row in facts)


@pytest.mark.parametrize(
    ("num_films", "held_out", "world"), [(16, False, HOME), (16, True, HOME), (8, True, SHIFTED)]
)
def test_every_query_of_a_library_is_answered_by_one_scene_only(
    num_films: int, held_out: bool, world: World
) -> None:
    films = random_library(7, num_films, held_out=held_out, world=world)
    scenes = [s for film in films for s in film.scenes]
    at_times = {
        one: [true_facts(one, share * one.duration_seconds) for share in np.linspace(0, 1, 9)]
        for one in scenes
    }
    rng = np.random.default_rng(5)
    for one in scenes:
        alike = [s for s in scenes if (s.thing, s.colour) == (one.thing, one.colour)]
        for caption in scene_captions(one, rng):
            rows = ({s: [true_facts(s)] for s in alike}) if caption.needs_time else at_times
            answers = [s for s in alike if any(caption.facts <= row for row in rows[s])]
            assert answers == [one], caption.text


def test_a_library_too_large_for_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="ask for fewer films"):
        random_library(0, 1000, held_out=True)


def test_a_library_depends_on_its_seed_alone() -> None:
    first, second, other = random_library(1, 3), random_library(1, 3), random_library(2, 3)
    assert first == second
    assert ground_truth(first, seed=1) == ground_truth(second, seed=1)
    assert first != other


def test_ground_truth_covers_each_film_scene_by_scene() -> None:
    films = random_library(3, 4)
    lines = ground_truth(films, seed=3)
    for number, film in enumerate(films):
        own = [line for line in lines if line.path == f"film_{number:03d}.mp4"]
        spans = sorted({(line.start_seconds, line.end_seconds) for line in own})
        assert spans[0][0] == 0
        assert spans[-1][1] == film.first_frames[-1] / FRAMES_PER_SECOND
        assert all(first[1] == second[0] for first, second in pairwise(spans))
        assert 5 <= len(spans) <= 9


def two_scenes(joint: str) -> FilmSpec:
    day, night = scene(num_frames=25), scene(place="sea", light="night", num_frames=30)
    return FilmSpec((day, night), (joint,), seed=1)  # type: ignore[arg-type]


def test_the_middle_of_a_fade_is_the_boundary_of_its_scenes() -> None:
    shares = [share for _, _, share in film_views(two_scenes("fade"))]
    assert len(shares) == 55
    assert np.flatnonzero(shares).tolist() == list(range(19, 31))
    assert shares[24] < 0.5 < shares[25]
    assert shares[24] + shares[25] == pytest.approx(1)


def test_a_film_is_cut_at_the_frame_of_its_ground_truth(tmp_path: Path) -> None:
    path = render_film(two_scenes("cut"), tmp_path / "film.mp4")
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == FRAMES_PER_SECOND
    assert len(frames) == 55
    assert frames[0].shape == (360, 640, 3)
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert int(np.argmax(steps)) + 1 == 25
    drawn = draw_image(two_scenes("cut").scenes[0], seconds=0.0)
    assert np.abs(frames[0].astype(int) - drawn).mean() < 4


def test_a_film_has_audio_as_long_as_its_frames(tmp_path: Path) -> None:
    film = two_scenes("cut")
    path = render_film(film, tmp_path / "film.mp4")
    with av.open(str(path)) as file:
        samples = np.concatenate([f.to_ndarray() for f in file.decode(audio=0)], axis=1)
        rate = file.streams.audio[0].rate
    assert samples.shape[1] / rate == pytest.approx(55 / FRAMES_PER_SECOND, abs=0.1)
    assert 0.01 < np.abs(samples).mean() < 0.5


def test_rain_can_be_heard() -> None:
    dry, wet = (FilmSpec((scene(light=light),), (), seed=2) for light in ("day", "rain"))
    rustle = compose_audio(wet) - compose_audio(dry)
    assert np.abs(rustle).mean() > 0.005


def test_the_same_film_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    first, second = (render_film(two_scenes("fade"), tmp_path / n) for n in ("a.mp4", "b.mp4"))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_library_is_films_and_their_ground_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [two_scenes("cut"), two_scenes("fade")]
    asked: list[dict[str, object]] = []

    def two_films(*args: object, **kwargs: object) -> list[FilmSpec]:
        asked.append(kwargs)
        return films

    monkeypatch.setattr("scanonce.training.world.films.random_library", two_films)
    truth_path = render_library(tmp_path / "films", seed=0, num_films=2, shifted=True, workers=2)
    assert asked == [{"held_out": False, "world": SHIFTED}]
    lines = [json.loads(line) for line in truth_path.read_text(encoding="utf-8").splitlines()]
    assert {line["path"] for line in lines} == {"film_000.mp4", "film_001.mp4"}
    for line in lines:
        assert set(line) == {"path", "query", "start_seconds", "end_seconds", "needs_time"}
        assert (truth_path.parent / line["path"]).stat().st_size > 10_000
        assert line["query"]


def test_a_still_equals_the_film_frame_at_its_time() -> None:
    size = (320, 180)
    still = Image.fromarray(draw_image(scene(happening="right"), size, seconds=2.0))
    earlier = Image.fromarray(draw_image(scene(happening="right"), size, seconds=1.0))
    assert still.size == size
    assert still.tobytes() != earlier.tobytes()
