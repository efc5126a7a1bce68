"""Training of the bundled localiser: its examples, reproducibility, selection, and the checkpoint."""

from __future__ import annotations

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
from scanonce.storage.errors import ConfigError
from scanonce.training.bundled.moment_examples import (
    INDEX_FPS,
    MomentPlan,
    captions_of,
    encode_film,
    make_libraries,
    may_answer,
    pairs_of,
    plan_films,
    read_library,
    stored_frames,
)
from scanonce.training.bundled.soonet import CURVE_TIOU, write_card
from scanonce.training.localiser.answers import CLIP_WEIGHTS, answer
from scanonce.training.localiser.batches import (
    FilmBatch,
    FilmFrames,
    MomentLibrary,
    label_anchors,
)
from scanonce.training.localiser.loss import draw_queries
from scanonce.training.localiser.run import save_checkpoint, train_localiser
from scanonce.training.world.films import FilmSpec, film_views, render_film
from scanonce.training.world.scene import FRAMES_PER_SECOND, is_held_out
from tests.toy_moments import FPS, GRID, TINY, finished, made_up, new_run
from tests.training_kit import ROOT, assert_equal, copy_weights
from tests.training_kit import one_thread as one_thread

BUNDLED = ROOT / "models" / "bundled" / "soonet"
PLAN = MomentPlan(films_per_library=1, pairs_per_library=4, num_libraries=2)


# --- Examples ---


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


def test_the_frames_are_those_an_index_stores(tmp_path: Path) -> None:
    film = plan_films(PLAN, "train", 0)[0]
    film = FilmSpec(film.scenes[:1], (), film.seed)
    path = render_film(film, tmp_path / "film.mp4")
    with open_video(path, sampling=Sampling("uniform", fps=INDEX_FPS)) as source:
        seconds = [frame.pts_seconds for frame in source.frames()]
    assert [round(each * FRAMES_PER_SECOND) for each in seconds] == stored_frames(film)


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
    assert len(library.films[0].frames) == len(stored_frames(film))
    queries = library.queries
    assert {*queries.scenes.tolist()} == {*range(len(film.scenes))}
    assert queries.has_kind.any()
    features = encoder.encode_text_features(queries.texts)
    np.testing.assert_allclose(queries.states, features.states, atol=0.1)


# --- Batches ---


def test_films_of_a_batch_are_encoded_as_each_alone() -> None:
    library = made_up(0)
    model = new_run(num_libraries=1).model.eval()
    batch = FilmBatch(library, model.config.grid)
    with torch.inference_mode():
        contexts, contents = batch.encode(model)
    pooled = [torch.nn.functional.normalize(c, dim=2).mean(dim=1) for c in contents]
    unit = torch.nn.functional.normalize(torch.cat(contexts), dim=1)
    vectors = torch.cat([unit, torch.cat(pooled)], dim=1).numpy()
    for number, film in enumerate(library.films):
        alone = model.scan(film.frames, dtype=np.float32).vectors
        np.testing.assert_allclose(vectors[batch.anchors.films == number], alone, atol=1e-5)


def test_labels_are_zero_in_other_films() -> None:
    batch = FilmBatch(made_up(1), GRID)
    labels = label_anchors(batch.anchors, batch.queries, np.arange(9))[0].numpy()
    for row, film in zip(labels, batch.queries.films[:, 0], strict=True):
        assert row.max() > 0.4
        assert not row[batch.anchors.films != film].any()


def test_a_film_that_ends_after_a_target_repeats_its_last_frame() -> None:
    film = FilmFrames(np.ones((4, 16), np.float16), duration_seconds=2.04)
    batch = FilmBatch(MomentLibrary([film], made_up(0).queries), GRID)
    assert batch.num_frames.tolist() == [5]
    assert batch.frames[0, :, 0].tolist() == [1] * 5 + [0] * 27


def test_a_batch_has_one_query_of_each_kind_for_each_scene() -> None:
    queries = made_up(2).queries
    twice = replace(queries, scenes=queries.scenes // 2)
    rows = draw_queries(twice, np.random.default_rng(0))
    kinds = [(twice.scenes[row], twice.kinds[row]) for row in rows]
    assert len(kinds) == len({*kinds}) == 9


# --- Training ---


def test_a_training_run_lowers_the_loss(tmp_path: Path) -> None:
    run = new_run(replace(TINY, steps=40), num_libraries=1)
    run.step()
    first = sum(run.at.losses.values())
    train_localiser(run, tmp_path / "state.pt")
    assert sum(run.at.losses.values()) < 0.9 * first


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = finished(TINY, tmp_path / "whole.pt", [made_up(9)])
    stopped = new_run(validation=[made_up(9)])
    for _ in range(7):
        stopped.step()
        if stopped.at.step == 5:
            stopped.validate()
    stopped.save(tmp_path / "state.pt")
    resumed = new_run(validation=[made_up(9)])
    resumed.resume(tmp_path / "state.pt")
    train_localiser(resumed, tmp_path / "state.pt")
    assert resumed.at.step == TINY.steps
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert_equal(resumed.kept_weights, whole.kept_weights)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    new_run(num_libraries=1).save(tmp_path / "state.pt")
    other = new_run(replace(TINY, learning_rate=1e-4), num_libraries=1)
    with pytest.raises(ConfigError, match=r"another recipe.*learning rate was 0\.003, is 0\.0001"):
        other.resume(tmp_path / "state.pt")


def test_a_run_out_of_time_ends_early(tmp_path: Path) -> None:
    run = new_run(num_libraries=1, cap=1e-6)
    train_localiser(run, tmp_path / "state.pt")
    assert run.at.step == 1


def test_the_weights_kept_are_the_best_on_validation() -> None:
    run = new_run(replace(TINY, steps=20), validation=[made_up(9)])
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    for _ in range(5):
        for _ in range(4):
            run.step()
        found = run.validate()
        assert found is not None
        seen.append((found.selection_metric, copy_weights(run.model)))
    metric, best = max(seen, key=lambda pair: pair[0])  # the first of equal ones
    assert run.best is not None
    assert run.best.selection_metric == metric
    assert_equal(run.kept_weights, best)


def test_the_checkpoint_answers_as_the_run_did(tmp_path: Path) -> None:
    run = finished(TINY, tmp_path / "state.pt", [made_up(9)])
    kept = save_checkpoint(run, tmp_path / "checkpoint", curve_tiou=CURVE_TIOU)
    assert kept.config.clip_weight == run.clip_weight
    assert kept.config.encoder_fingerprint == fingerprint_folder(BUNDLED_FOLDER)
    for name, weights in kept.state_dict().items():
        torch.testing.assert_close(weights, run.kept_weights[name], atol=1e-3, rtol=1e-3)


def test_an_untrained_network_finds_the_right_film_by_the_similarity_of_frames() -> None:
    """With all weight on the frames' own similarity every made-up scene is found."""
    model = new_run(num_libraries=1).model
    batch = FilmBatch(made_up(4), model.config.grid)
    (answers,) = answer(model, [batch], clip_weights=[1e6], reranked=1000).values()
    assert answers.right_film.all()


def test_the_checkpoint_has_a_card(tmp_path: Path) -> None:
    run = finished(TINY, tmp_path / "state.pt", [made_up(9)])
    model = save_checkpoint(run, tmp_path, curve_tiou=0.0)
    answers = answer(model, run.validation)[0.0]
    write_card(run, PLAN, answers, tmp_path, "python -m scanonce.training.bundled.soonet out")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| need no time | {5} |" in card
    assert "held-out" in card


# --- The bundled checkpoint ---


def test_the_bundled_localiser_fits_the_bundled_encoder() -> None:
    config = read_soonet(BUNDLED).config
    assert config.encoder_fingerprint == fingerprint_folder(BUNDLED_FOLDER)
    assert config.fps == INDEX_FPS == FPS
    assert config.clip_weight in CLIP_WEIGHTS


def test_the_bundled_localiser_is_small() -> None:
    assert (BUNDLED / "model.safetensors").stat().st_size <= 5_000_000
