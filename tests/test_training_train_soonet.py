"""Training the bundled localiser: its examples, reproducibility, selection, and the checkpoint it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from scanonce.media.open import open_video
from scanonce.media.sampling import Sampling
from scanonce.models.encoders.hub import BUNDLED_FOLDER, BUNDLED_NAME, fingerprint_folder
from scanonce.models.encoders.load import load_encoder
from scanonce.models.soonet.checkpoint import read_soonet
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.storage.errors import ConfigError
from scanonce.training.bundled.moment_examples import (
    INDEX_FPS,
    MomentPlan,
    captions_of,
    encode_film,
    kept_frames,
    make_libraries,
    may_answer,
    pairs_of,
    plan_films,
    read_library,
)
from scanonce.training.bundled.soonet import CURVE_TIOU, bundled_network, write_card
from scanonce.training.localiser.answers import CLIP_WEIGHTS, answer
from scanonce.training.localiser.batches import (
    FilmBatch,
    FilmFrames,
    MomentLibrary,
    Queries,
    labels_of,
)
from scanonce.training.localiser.loss import Recipe, draw_queries
from scanonce.training.localiser.run import Rotation, Run, save_checkpoint, train
from scanonce.training.world.films import FilmSpec, film_views, render_film
from scanonce.training.world.scene import FRAMES_PER_SECOND, is_held_out

BUNDLED = Path(__file__).parents[1] / "models" / "bundled" / "soonet"

TINY = Recipe(steps=12, warm_up_steps=2, learning_rate=3e-3, evaluate_every=5, save_every=3)
PLAN = MomentPlan(films_per_library=1, pairs_per_library=4, num_libraries=2)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So small a model only loses time when its threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_up(seed: int, num_films: int = 3) -> MomentLibrary:
    """A library of noise in which every scene has a direction of its own, known to its query."""
    rng = np.random.default_rng(seed)
    films, rows = [], []
    directions = rng.standard_normal((3 * num_films, 16)).astype(np.float32)
    for film in range(num_films):
        lengths = rng.integers(8, 16, size=3)
        ends = np.cumsum([0, *lengths])
        clean = np.repeat(directions[3 * film : 3 * film + 3], lengths, axis=0)
        frames = clean + 0.3 * rng.standard_normal(clean.shape)
        films.append(FilmFrames(frames.astype(np.float16), ends[-1] / INDEX_FPS))
        rows += [(film, 3 * film + k, ends[k] / 2, ends[k + 1] / 2) for k in range(3)]
    table = np.array(rows)
    queries = Queries(
        texts=[f"query {k}" for k in range(len(rows))],
        films=table[:, :1].astype(np.int64),
        scenes=table[:, 1].astype(np.int64),
        spans=table[:, None, 2:],
        kinds=["rise" if k % 2 else "" for k in range(len(rows))],
        joint=directions,
        states=np.concatenate([directions, directions], axis=1),
    )
    return MomentLibrary(films, queries)


def new_run(
    recipe: Recipe,
    libraries: list[MomentLibrary],
    validation: list[MomentLibrary],
    cap: float = 1e9,
) -> Run:
    config = replace(bundled_network(libraries[0]), hidden_dim=32, num_heads=2, window=8)
    rotation = Rotation(libraries, seed=recipe.seed)
    return Run(recipe, config, rotation, validation, cap_seconds=cap)


# --- Examples -----------------------------------------------------------------------------------


def test_no_pair_is_in_two_splits() -> None:
    train_pairs, validation_pairs = {*pairs_of("train")}, {*pairs_of("validation")}
    assert not train_pairs & validation_pairs
    assert train_pairs | validation_pairs == {*pairs_of("all")}
    assert not any(is_held_out(*pair) for pair in pairs_of("all"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_library_has_pairs_of_its_split_only(split: Literal["train", "validation"]) -> None:
    plan = MomentPlan(validation_films=8)
    scenes = [scene for film in plan_films(plan, split, 0) for scene in film.scenes]
    pairs = {(scene.thing, scene.colour) for scene in scenes}
    assert pairs <= {*pairs_of(split)}
    if split == "train":
        assert len(pairs) <= plan.pairs_per_library


def test_no_caption_of_a_scene_is_true_of_another() -> None:
    scenes = [scene for film in plan_films(MomentPlan(), "train", 3) for scene in film.scenes]
    for scene in scenes:
        others = [other for other in scenes if other is not scene]
        rng = np.random.default_rng(scene.seed)
        captions = captions_of(scene, others, rng, wordings=3, partial=True)
        assert all(may_answer(scene, caption) for caption in captions)
        assert not any(may_answer(other, caption) for other in others for caption in captions)


def test_the_frames_are_those_an_index_keeps(tmp_path: Path) -> None:
    film = plan_films(PLAN, "train", 0)[0]
    film = FilmSpec(film.scenes[:1], (), film.seed)
    path = render_film(film, tmp_path / "film.mp4")
    with open_video(path, sampling=Sampling("uniform", fps=INDEX_FPS)) as source:
        seconds = [frame.pts_seconds for frame in source.frames()]
    assert [round(each * FRAMES_PER_SECOND) for each in seconds] == kept_frames(film)


def test_frames_drawn_by_number_are_those_drawn_in_order() -> None:
    film = plan_films(PLAN, "train", 1)[0]
    film = FilmSpec(film.scenes[:2], ("fade",), film.seed)
    numbers = [0, 13, film.first_frames[1]]
    every, some = [*film_views(film)], [*film_views(film, numbers)]
    assert some == [every[number] for number in numbers]


def test_libraries_come_back_from_disk_and_are_made_once(tmp_path: Path) -> None:
    (path,) = make_libraries(replace(PLAN, num_libraries=1), "train", tmp_path, workers=1)
    before = path.stat().st_mtime_ns
    assert make_libraries(PLAN, "train", tmp_path, workers=1)[0] == path
    assert path.stat().st_mtime_ns == before
    library, (film,) = read_library(path), plan_films(PLAN, "train", 0)
    encoder = load_encoder(BUNDLED_NAME)
    np.testing.assert_array_equal(
        library.films[0].frames, encode_film(film, encoder, PLAN.draw_size)
    )
    assert len(library.films[0].frames) == len(kept_frames(film))
    queries = library.queries
    assert {*queries.scenes.tolist()} == {*range(len(film.scenes))}
    assert queries.has_kind.any()
    features = encoder.encode_text_features(queries.texts)
    np.testing.assert_allclose(queries.states, features.states, atol=0.1)


# --- Batches ------------------------------------------------------------------------------------


def test_films_side_by_side_are_encoded_as_each_alone() -> None:
    library = made_up(0)
    run = new_run(TINY, [library], [])
    run.model.eval()
    batch = FilmBatch(library, run.model.config.grid)
    with torch.inference_mode():
        contexts, contents = batch.encode(run.model)
    pooled = [torch.nn.functional.normalize(c, dim=2).mean(dim=1) for c in contents]
    unit = torch.nn.functional.normalize(torch.cat(contexts), dim=1)
    vectors = torch.cat([unit, torch.cat(pooled)], dim=1).numpy()
    for number, film in enumerate(library.films):
        alone = run.model.scan(film.frames, dtype=np.float32).vectors
        np.testing.assert_allclose(vectors[batch.anchors.films == number], alone, atol=1e-5)


def test_labels_are_zero_in_other_films() -> None:
    batch = FilmBatch(made_up(1), AnchorGrid(INDEX_FPS, 4, 4))
    labels = labels_of(batch.anchors, batch.queries, np.arange(9))[0].numpy()
    for row, film in zip(labels, batch.queries.films[:, 0], strict=True):
        assert row.max() > 0.4
        assert not row[batch.anchors.films != film].any()


def test_a_film_that_ends_after_a_target_repeats_its_last_frame() -> None:
    film = FilmFrames(np.ones((4, 16), np.float16), duration_seconds=2.04)
    library = MomentLibrary([film], made_up(0).queries)
    batch = FilmBatch(library, AnchorGrid(INDEX_FPS, 4, 4))
    assert batch.num_frames.tolist() == [5]
    assert batch.frames[0, :, 0].tolist() == [1] * 5 + [0] * 27


def test_a_batch_asks_for_each_scene_once_in_each_kind() -> None:
    queries = made_up(2).queries
    twice = replace(queries, scenes=queries.scenes // 2)
    rows = draw_queries(twice, np.random.default_rng(0))
    kinds = [(twice.scenes[row], twice.kinds[row]) for row in rows]
    assert len(kinds) == len({*kinds}) == 9


# --- Training -----------------------------------------------------------------------------------


def finished(recipe: Recipe, state: Path, validation: list[MomentLibrary]) -> Run:
    run = new_run(recipe, [made_up(seed) for seed in range(3)], validation)
    train(run, state)
    return run


def test_a_training_run_lowers_the_loss(tmp_path: Path) -> None:
    run = new_run(replace(TINY, steps=40), [made_up(0)], [])
    run.step()
    first = sum(run.at.losses.values())
    train(run, tmp_path / "state.pt")
    assert sum(run.at.losses.values()) < 0.9 * first


def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(tmp_path: Path) -> None:
    whole = finished(TINY, tmp_path / "whole.pt", [made_up(9)])
    stopped = new_run(TINY, [made_up(seed) for seed in range(3)], [made_up(9)])
    for _ in range(7):
        stopped.step()
        if stopped.at.step == 5:
            stopped.validate()
    stopped.save(tmp_path / "state.pt")
    resumed = new_run(TINY, [made_up(seed) for seed in range(3)], [made_up(9)])
    resumed.resume(tmp_path / "state.pt")
    train(resumed, tmp_path / "state.pt")
    assert resumed.at.step == TINY.steps
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name])
        assert torch.equal(whole.best[name], resumed.best[name])


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    new_run(TINY, [made_up(0)], []).save(tmp_path / "state.pt")
    other = new_run(replace(TINY, learning_rate=1e-4), [made_up(0)], [])
    with pytest.raises(ConfigError, match="another recipe"):
        other.resume(tmp_path / "state.pt")


def test_a_run_out_of_time_ends_early(tmp_path: Path) -> None:
    run = new_run(TINY, [made_up(0)], [], cap=1e-6)
    train(run, tmp_path / "state.pt")
    assert run.at.step == 1


def test_the_weights_kept_are_the_best_on_validation() -> None:
    run = new_run(replace(TINY, steps=20), [made_up(seed) for seed in range(3)], [made_up(9)])
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    for _ in range(5):
        for _ in range(4):
            run.step()
        answers = run.validate()
        assert answers is not None
        weights = {name: each.clone() for name, each in run.model.state_dict().items()}
        seen.append((answers.goodness, weights))
    goodness, best = max(seen, key=lambda pair: pair[0])  # of equals the first
    assert run.at.best == goodness
    assert all(torch.equal(best[name], run.best[name]) for name in best)


def test_the_checkpoint_answers_as_the_run_did(tmp_path: Path) -> None:
    run = finished(TINY, tmp_path / "state.pt", [made_up(9)])
    kept = save_checkpoint(run, tmp_path / "checkpoint", curve_tiou=CURVE_TIOU)
    assert kept.config.clip_weight == run.at.clip_weight
    assert kept.config.encoder_fingerprint == fingerprint_folder(BUNDLED_FOLDER)
    for name, weights in kept.state_dict().items():
        torch.testing.assert_close(weights, run.best[name], atol=1e-3, rtol=1e-3)


def test_without_time_to_lose_an_answer_is_the_right_film(tmp_path: Path) -> None:
    """With all weight on the frames' own similarity every made-up scene is found at once."""
    library = made_up(4)
    run = new_run(TINY, [library], [])
    batch = FilmBatch(library, run.model.config.grid)
    (answers,) = answer(run.model, [batch], clip_weights=[1e6], reranked=1000).values()
    assert answers.right_film.all()


def test_the_checkpoint_has_a_card(tmp_path: Path) -> None:
    run = finished(TINY, tmp_path / "state.pt", [made_up(9)])
    model = save_checkpoint(run, tmp_path, curve_tiou=0.0)
    answers = answer(model, run.validation)[0.0]
    write_card(run, PLAN, answers, tmp_path, "python -m scanonce.training.bundled.soonet out")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| need no time | {5} |" in card
    assert "held-out" in card


# --- The bundled checkpoint ---------------------------------------------------------------------


def test_the_bundled_localiser_fits_the_bundled_encoder() -> None:
    config = read_soonet(BUNDLED).config
    assert config.encoder_fingerprint == fingerprint_folder(BUNDLED_FOLDER)
    assert config.fps == INDEX_FPS
    assert config.clip_weight in CLIP_WEIGHTS


def test_the_bundled_localiser_is_small() -> None:
    assert (BUNDLED / "model.safetensors").stat().st_size <= 5_000_000
