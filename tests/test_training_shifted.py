"""The benchmark of fine-tuning on the shifted world: its parts on two small films, its verdict on made-up hits."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import shifted
from benchmarks.shifted import RECIPE, TEST, Comparison, Hits, compare, tune
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.training.curves import PLOT_NAME
from scanonce.training.world.films import FilmSpec, ensure_rendered, ground_truth, render_film
from scanonce.training.world.scene import SHIFTED, SceneSpec


def write_films(folder: Path) -> Path:
    """Write two films of two scenes, of different things, colours and places; returns their ground truth."""
    names = zip(("car", "dog", "star", "fish"), SHIFTED.colours, SHIFTED.places, strict=False)
    scenes = [
        SceneSpec(thing, colour, place, "day", 1, "nothing", num_frames=35, seed=number)
        for number, (thing, colour, place) in enumerate(names)
    ]
    films = [FilmSpec(tuple(scenes[n : n + 2]), ("cut",), seed=n) for n in (0, 2)]
    folder.mkdir()
    for number, film in enumerate(films):
        render_film(film, folder / f"film_{number:03d}.mp4")
    lines = [json.dumps(asdict(line)) for line in ground_truth(films, seed=0)]
    truth = folder / "ground_truth.jsonl"
    truth.write_text("\n".join(lines))
    return truth


def test_an_encoder_is_tuned_on_films_which_are_asked_before_and_after(tmp_path: Path) -> None:
    truth = write_films(tmp_path / "films")
    recipe = replace(RECIPE, epochs=3, batch=4, encoder_lr=1e-4)
    tuned = tune(truth, tmp_path, recipe, validation=truth, minutes_cap=5.0)
    assert (tuned / PLOT_NAME).stat().st_size > 5_000
    after = load_encoder(str(tuned), towers="vision")
    assert after.fingerprint != load_encoder(BUNDLED_NAME, towers="vision").fingerprint
    found = compare(truth, tuned)
    num_queries = len(truth.read_text().splitlines())
    for hits in (found.auto, found.training_free, found.tuned):
        assert hits.film.shape == hits.moment.shape == (num_queries,)
        assert (hits.film >= hits.moment).all()
    assert found.tuned.film.any(), "two films, and none of them found"


def some_hits(moments: list[int]) -> Hits:
    return Hits(np.ones(len(moments), bool), np.array(moments, bool))


def test_the_lift_is_over_the_better_localiser_before() -> None:
    worse, better = some_hits([1, 0, 0, 0]), some_hits([0, 1, 1, 0])
    tuned = some_hits([1, 1, 1, 0])
    for comparison in (Comparison(worse, better, tuned), Comparison(better, worse, tuned)):
        assert comparison.lift.value == pytest.approx(0.25)
        assert comparison.lift.low <= 0.25 <= comparison.lift.high


@pytest.mark.parametrize(("num_better", "exit_code"), [(9, 1), (10, 0)])
def test_the_command_fails_if_the_lift_is_less_than_ten_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_better: int, exit_code: int
) -> None:
    (tmp_path / PLOT_NAME).write_bytes(b"curves")
    before = some_hits([0] * 100)
    comparison = Comparison(before, before, some_hits([1] * num_better + [0] * (100 - num_better)))
    truth = tmp_path / "films" / "ground_truth.jsonl"
    monkeypatch.setattr(shifted, "ensure_rendered", lambda *args, **kwargs: truth)
    monkeypatch.setattr(shifted, "tune", lambda *args, **kwargs: tmp_path)
    monkeypatch.setattr(shifted, "compare", lambda *args: comparison)
    app = typer.Typer()
    app.command()(shifted.main)
    picture = tmp_path / "copied.png"
    result = CliRunner().invoke(app, ["--work", str(tmp_path), "--picture", str(picture)])
    assert result.exit_code == exit_code, result.output
    assert f"+{num_better}.0 points" in result.output
    assert picture.read_bytes() == b"curves"


def test_films_are_rendered_again_only_if_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderings: list[Path] = []

    def render(films: list[FilmSpec], folder: Path, *, seed: int, **_: object) -> None:
        renderings.append(folder)
        folder.mkdir(parents=True)
        lines = [json.dumps(asdict(line)) for line in ground_truth(films, seed=seed)]
        (folder / "ground_truth.jsonl").write_text("\n".join(lines) + "\n")

    monkeypatch.setattr("scanonce.training.world.films.render_films", render)
    small = replace(TEST, num_films=2)
    truth = ensure_rendered(small, tmp_path, workers=1)
    assert truth == ensure_rendered(small, tmp_path, workers=1)
    assert truth.is_relative_to(tmp_path)
    assert renderings == [truth.parent]
    ensure_rendered(replace(small, seed=5), tmp_path, workers=1)
    assert len(renderings) == 2
