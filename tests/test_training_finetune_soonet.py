"""Training of a localiser on an index: its libraries, its network, interruption, and its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.trained import choose_localiser, load_localiser
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.errors import ConfigError, LocaliserError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, write_manifest
from scanonce.storage.records import Span, Video, VideoInfo
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.training.curves import CSV_NAME, PLOT_NAME
from scanonce.training.evaluation.annotations import Annotation
from scanonce.training.localiser import from_index
from scanonce.training.localiser.answers import answer
from scanonce.training.localiser.batches import FilmBatch, label_anchors
from scanonce.training.localiser.examples import (
    AnnotatedQuery,
    AnnotatedVideos,
    EncodedTexts,
    RandomLibraries,
    StoredMoments,
    annotate,
    pack_libraries,
    split_off,
)
from scanonce.training.localiser.from_index import (
    STATE_NAME,
    Choices,
    Trained,
    network_for,
    train_on_index,
)
from scanonce.training.localiser.loss import library_loss
from scanonce.training.localiser.recipe import LocaliserRecipe
from scanonce.training.localiser.run import LocaliserRun, Rotation
from scanonce.training.processes import OneProcess
from scanonce.ui.commands.train_soonet import train_soonet
from tests.toy_moments import FPS, GRID, TINY_NETWORK, noise
from tests.training_kit import assert_equal, run_until_killed
from tests.training_kit import one_thread as one_thread


def video(number: int, name: str, seconds: float = 20.0) -> Video:
    return Video(number, f"{number:032x}", "indexed", seconds, int(seconds * FPS), (Path(name),))


def annotation(text: str, name: str, *spans: tuple[float, float]) -> Annotation:
    return Annotation("0", text, name, tuple(Span(*span) for span in spans))


# --- Annotations of an index ---


def test_annotations_find_their_video_by_its_name_and_stay_inside_it() -> None:
    videos = [video(7, "/a/dog.mp4"), video(9, "/a/cat.2.mkv")]
    found = annotate(
        videos,
        [
            annotation("runs", "cat.2", (3.0, 8.0), (15.0, 99.0), (30.0, 40.0)),
            annotation("too late", "dog", (25.0, 30.0)),
            annotation("whole", "dog"),
            annotation("sits", "bird", (0.0, 1.0)),
            annotation("flies", "bird", (0.0, 1.0)),
        ],
    )
    assert found.videos == (videos[1],)
    assert found.queries == (AnnotatedQuery(0, "runs", (Span(3.0, 8.0), Span(15.0, 20.0))),)
    assert (found.missing, found.whole, found.outside) == (("bird",), 1, 1)


def test_copies_of_a_content_are_one_video_but_two_contents_of_one_name_are_refused() -> None:
    twin = replace(video(1, "/a/dog.mp4"), paths=(Path("/a/dog.mp4"), Path("/b/dog.mp4")))
    runs = annotation("runs", "dog", (3.0, 8.0))
    assert len(annotate([twin], [runs]).queries) == 1
    with pytest.raises(ConfigError, match="both have the name"):
        annotate([twin, video(2, "/c/dog.mkv")], [runs])


def annotated(num_videos: int, queries_each: int, seconds: float = 20.0) -> AnnotatedVideos:
    return AnnotatedVideos(
        tuple(video(n, f"/a/{n}.mp4", seconds) for n in range(num_videos)),
        tuple(
            AnnotatedQuery(n, f"{n} {k}", (Span(k % 8, k % 8 + 8.0),))
            for n in range(num_videos)
            for k in range(queries_each)
        ),
    )


def test_held_out_videos_are_not_trained_on() -> None:
    both = annotated(10, 2)
    train, held_out = split_off(both, 0.25, seed=3)
    assert {*train.videos} | {*held_out.videos} == {*both.videos}
    assert len(held_out.videos) == 2
    for part in (train, held_out):
        for query in part.queries:
            assert query.text.startswith(Path(part.videos[query.video].path).stem)
    assert not split_off(annotated(4, 2), 0.25, seed=3)[1].videos


# --- Libraries ---


def stored(parts: AnnotatedVideos, folder: Path) -> StoredMoments:
    """Moments with frames and text features of noise."""
    rng = np.random.default_rng(0)
    store = FeatureStore(folder)
    for each in parts.videos:
        frames = rng.standard_normal((each.num_frames, 8)).astype(np.float16)
        store.write(each.uid, FrameFeatures(frames, np.arange(each.num_frames) / FPS, FPS))
    texts = [query.text for query in parts.queries]
    features = rng.standard_normal((len(texts), 8)).astype(np.float32)
    rows = {text: row for row, text in enumerate(texts)}
    table = EncodedTexts(rows, TextFeatures(features, features))
    return StoredMoments(parts, table, store, GRID)


def test_every_query_occurs_once_in_an_epoch_whatever_was_drawn_before(tmp_path: Path) -> None:
    moments = stored(annotated(7, 40), tmp_path)
    drawn = RandomLibraries(moments, seed=1, most_frames=100, most_queries=64)
    first, second = drawn.num_libraries(1), drawn.num_libraries(2)
    epoch = [drawn.library(number) for number in range(first, second)]
    texts = [text for library in epoch for text in library.queries.texts]
    assert sorted(texts) == sorted(query.text for query in moments.queries)
    assert all(len(library.films) <= 2 for library in epoch)  # 40 frames each
    again = RandomLibraries(moments, seed=1, most_frames=100, most_queries=64).library(first)
    assert again.queries.texts == epoch[0].queries.texts
    assert (
        RandomLibraries(moments, seed=2).library(0).queries.texts != drawn.library(0).queries.texts
    )


def test_long_films_stay_alone_and_short_ones_within_bounds() -> None:
    chunks = [(n % 6, np.arange(10)) for n in range(12)]
    groups = pack_libraries(chunks, [900, 300, 100, 400, 200, 350], 1000, 25)
    assert sum(len(group) for group in groups) == 12
    assert all(len(group) == 1 for group in groups if group[0][0] == 0)
    for group in groups:
        assert len({film for film, _ in group}) == len(group) <= 2


def test_answers_are_all_spans_and_those_of_the_same_text_in_other_videos(tmp_path: Path) -> None:
    parts = AnnotatedVideos(
        tuple(video(n, f"/a/{n}.mp4") for n in range(3)),
        (
            AnnotatedQuery(0, "A dog runs.", (Span(0, 4), Span(10, 16))),
            AnnotatedQuery(1, "a dog  runs", (Span(8, 12),)),
            AnnotatedQuery(2, "a dog runs", (Span(5, 9),)),
            AnnotatedQuery(1, "a cat", (Span(8, 12),)),
        ),
    )
    library = stored(parts, tmp_path).library([1, 0], [0, 1, 3])  # video 2 is not in it
    queries = library.queries
    assert queries.films.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert queries.spans[2].tolist() == [[8, 12]] * 3
    assert queries.scenes[0] == queries.scenes[1] != queries.scenes[2]
    batch = FilmBatch(library, GRID)
    labels, best = label_anchors(batch.anchors, queries, np.array([0]))
    spans = batch.anchors.spans.numpy().tolist()
    right = [
        (film, *span)
        for film, span, label in zip(batch.anchors.films, spans, labels[0], strict=True)
        if label == 1
    ]
    assert right == [(0, 8, 12), (1, 0, 4)]
    exact = torch.nonzero(labels[0] == 1)[:, 0]
    assert best[0, exact].tolist() == [2, 0]


def test_frames_of_a_library_are_those_that_answer_the_times_of_the_grid(tmp_path: Path) -> None:
    parts = AnnotatedVideos((video(0, "/a/0.mp4", 3.0),), (AnnotatedQuery(0, "x", (Span(0, 2),)),))
    moments = stored(parts, tmp_path)
    frames = np.arange(4, dtype=np.float16)[:, None].repeat(8, axis=1)
    gap = np.array([0.0, 0.5, 2.0, 2.5])
    FeatureStore(tmp_path).write(parts.videos[0].uid, FrameFeatures(frames, gap, FPS))
    assert moments.library([0], [0]).films[0].frames[:, 0].tolist() == [0, 1, 1, 1, 2, 3]


# --- Loss ---


def test_in_a_long_film_the_second_stage_sees_few_frames_and_every_best_anchor() -> None:
    batch = FilmBatch(noise(600.0, [(100.0, 100.4), (10.0, 500.0)]), GRID)
    torch.manual_seed(0)
    model, recipe = Soonet(TINY_NETWORK), LocaliserRecipe(content_frames=320)
    seen: list[int] = []
    original = batch.encode

    def encode(*args: Any) -> Any:
        contexts, contents = original(*args)
        seen.append(sum(content.shape[0] * content.shape[1] for content in contents))
        return contexts, contents

    batch.encode = encode  # type: ignore[method-assign, assignment]
    terms = library_loss(model, batch, recipe, np.random.default_rng(0))
    assert len(seen) == 1
    assert 200 < seen[0] <= 320 + 2 * 32
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_moment_shorter_than_any_anchor_still_trains_its_edges() -> None:
    batch = FilmBatch(noise(30.0, [(10.0, 10.1)]), GRID)
    terms = library_loss(Soonet(TINY_NETWORK), batch, LocaliserRecipe(), np.random.default_rng(0))
    assert all(torch.isfinite(term) for term in terms.values())
    assert terms["edges"] > 0


def test_an_answer_counts_by_the_right_span_it_fits_best() -> None:
    library = noise(30.0, [(0.0, 2.0)])
    library = replace(
        library,
        queries=replace(
            library.queries,
            films=np.array([[0, 0]]),
            spans=np.array([[[90.0, 95.0], [0.0, 30.0]]]),
        ),
    )
    (answers,) = answer(Soonet(TINY_NETWORK), [FilmBatch(library, GRID)]).values()
    assert answers.right_film.all()
    assert answers.tiou[0] > 0


# --- Several processes ---


class Half(OneProcess):
    """One of two processes, which gets the sums of the other one."""

    count = 2

    def __init__(self, index: int, other: list[torch.Tensor] | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self.index = index
        self.mine: list[torch.Tensor] = []
        self._other = other

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        self.mine = [tensor.clone() for tensor in tensors]
        for tensor, more in zip(tensors, self._other or [], strict=False):
            tensor += more


def test_two_processes_step_as_one_with_twice_the_libraries() -> None:
    recipe = LocaliserRecipe(steps=5, libraries_per_step=2)
    libraries = [noise(30.0, [(2.0, 9.0), (12.0, 20.0)], seed) for seed in range(2)]

    def stepped(processes: OneProcess) -> LocaliserRun:
        run = LocaliserRun(
            recipe, TINY_NETWORK, Rotation(libraries, seed=0), [], processes=processes
        )
        run.step()
        return run

    second = Half(1)
    stepped(second)
    whole = stepped(OneProcess(torch.device("cpu")))
    shared = stepped(Half(0, second.mine))
    for name, weights in whole.model.state_dict().items():
        torch.testing.assert_close(weights, shared.model.state_dict()[name], atol=1e-6, rtol=1e-4)
    assert shared.at.losses == pytest.approx(whole.at.losses, rel=1e-5)
    with pytest.raises(ConfigError, match="2 processes cannot share 3"):
        LocaliserRun(
            replace(recipe, libraries_per_step=3),
            TINY_NETWORK,
            Rotation(libraries, seed=0),
            [],
            processes=Half(0),
        )


# --- Network ---


def network(*, fps: float, dim: int, moment: float, film: float) -> SoonetConfig:
    manifest = Manifest("x", "f" * 64, dim, "uniform", fps, (4.0,), 0.5)
    parts = AnnotatedVideos(
        (video(0, "/a/0.mp4", film),), (AnnotatedQuery(0, "x", (Span(0.0, moment),)),)
    )
    features = np.zeros((1, 512), np.float32)
    texts = EncodedTexts({"x": 0}, TextFeatures(features, features))
    return network_for(manifest, parts, texts)


def test_for_mad_the_network_is_the_published_one() -> None:
    config = network(fps=5.0, dim=512, moment=4.1, film=6648.0)
    published = SoonetConfig(encoder_fingerprint="f" * 64)
    assert config == published
    assert config.grid.lengths == [10, 20, 40, 80]


@pytest.mark.parametrize(
    ("fps", "dim", "moment", "expected"),
    [
        (2.0, 128, 8.0, {"snippet_length": 4, "num_scales": 4, "hidden_dim": 128, "num_heads": 4}),
        (2.0, 768, 36.0, {"num_scales": 6, "hidden_dim": 512, "frame_dim": 768, "num_heads": 8}),
        (0.25, 512, 900.0, {"snippet_length": 1, "num_scales": 7}),
        (25.0, 512, 99.0, {"snippet_length": 50, "num_scales": 7, "max_positions": 3200}),
    ],
)
def test_anchors_follow_the_moments_and_the_width_the_frames(
    fps: float, dim: int, moment: float, expected: dict[str, Any]
) -> None:
    config = network(fps=fps, dim=dim, moment=moment, film=60.0)
    assert config.window == 16
    assert {name: getattr(config, name) for name in expected} == expected
    Soonet(replace(config, hidden_dim=32, num_heads=2))


# --- From an index to a localiser ---

QUERIES = [
    f"a {colour} {thing}"
    for colour in ("red", "blue", "green", "yellow", "white", "black")
    for thing in ("car", "boat", "balloon")
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of six videos of three scenes; the frames of a scene are noisy copies of its query's features."""
    encoder = load_encoder(BUNDLED_NAME, towers="text")
    rng = np.random.default_rng(0)
    joint = encoder.encode_texts(QUERIES)
    layout = IndexLayout(tmp_path_factory.mktemp("library") / "index")
    layout.root.mkdir()
    manifest = Manifest(
        BUNDLED_NAME, encoder.fingerprint, encoder.dim, "uniform", FPS, (4.0, 8.0), 0.5
    )
    write_manifest(layout, manifest)
    lines = []
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(Path("/films"))
        for number in range(6):
            lengths = rng.integers(12, 24, size=3)
            ends = np.cumsum([0, *lengths]) / FPS
            scenes = range(3 * number, 3 * number + 3)
            frames = np.repeat(joint[scenes], lengths, axis=0)
            frames = frames + 0.5 * joint.std() * rng.standard_normal(frames.shape)
            uid = f"{number:032x}"
            pts = np.arange(len(frames)) / FPS
            FeatureStore(layout.features).write(
                uid, FrameFeatures(frames.astype(np.float16), pts, FPS)
            )
            catalog.record_indexed(
                Content(uid, uid, 100),
                [FileStamp(Path(f"/films/clip_{number}.mp4"), 100, 1)],
                state="indexed",
                duration_seconds=float(ends[-1]),
                num_frames=len(frames),
                info=VideoInfo(float(ends[-1]), 320, 180, 25.0, "h264"),
            )
            for part, scene in enumerate(scenes):
                line = {"video": f"clip_{number}.mp4", "query": QUERIES[scene]}
                span = {"start_seconds": ends[part], "end_seconds": ends[part + 1]}
                lines.append(line | span)
    lines.append({"video": "gone.mp4", "query": "x", "start_seconds": 0, "end_seconds": 1})
    (layout.root.parent / "moments.jsonl").write_text(
        "".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8"
    )
    return layout.root


CHOICES = Choices(steps=9, validation_share=0.34, save_every=2)


@pytest.fixture(scope="module")
def whole(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run: ``out``, ``out.work`` and ``report.txt``."""
    folder = tmp_path_factory.mktemp("whole")
    config = folder / "config.toml"
    config.write_text('[models]\ndevice = "cpu"\n')
    annotations = index.parent / "moments.jsonl"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as report:
        patch.setattr(from_index, "Choices", partial(Choices, save_every=CHOICES.save_every))
        patch.setenv("COLUMNS", "200")
        train_soonet(
            annotations,
            folder / "out",
            index_dir=index,
            steps=CHOICES.steps,
            validation_share=CHOICES.validation_share,
            config=config,
        )
    (folder / "report.txt").write_text(report.getvalue(), encoding="utf-8")
    return folder


def test_the_localiser_is_one_of_its_index_and_of_no_other(index: Path, whole: Path) -> None:
    localiser = load_localiser(str(whole / "out"))
    assert localiser.grid == GRID
    fits = {"fingerprint": localiser.model.config.encoder_fingerprint, "dim": 128}
    chosen = choose_localiser(str(whole / "out"), **fits, sampling="uniform", fps=FPS)  # type: ignore[arg-type]
    assert chosen is not None
    with pytest.raises(LocaliserError, match="frames a second"):
        choose_localiser(str(whole / "out"), **fits, sampling="uniform", fps=5.0)  # type: ignore[arg-type]


def test_figures_are_reported_with_those_of_other_localisers(whole: Path) -> None:
    report = (whole / "report.txt").read_text(encoding="utf-8")
    assert "moments.jsonl that are not in the index: 1, gone" in report
    assert "12 queries about 4 videos to train on, 6 about 2 held out" in report
    for name in ("training-free", "bundled", "trained, edges of the curve"):
        assert f" {name} " in report
    values = json.loads((whole / "out" / "training.json").read_text(encoding="utf-8"))
    free = values["held out"]["training-free"]
    assert free["num_queries"] == 6
    assert free["in_video"]["0.5"]["value"] == 1.0  # scenes of one image with a little noise
    assert (whole / "out.work" / PLOT_NAME).stat().st_size > 1000


KILLED = """
import os, signal, sys
from math import inf
from pathlib import Path
from scanonce.training.localiser.from_index import Choices, train_on_index
from scanonce.training.localiser.run import LocaliserRun

step = LocaliserRun.step

def stop(run):
    if run.at.step == 7:  # saved after the 6th
        os.kill(os.getpid(), signal.SIGKILL)
    step(run)

LocaliserRun.step = stop
index, annotations, out = map(Path, sys.argv[1:4])
train_on_index(index, annotations, out, eval(sys.argv[4]), work=out.with_name("out.work"))
"""


def train(index: Path, out: Path, choices: Choices) -> Trained:
    annotations, work = index.parent / "moments.jsonl", out.with_name("out.work")
    return train_on_index(index, annotations, out, choices, work=work)


def test_a_killed_run_is_resumed_to_the_weights_of_an_uninterrupted_one(
    index: Path, whole: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "out.work"
    run_until_killed(KILLED, index, index.parent / "moments.jsonl", out, repr(CHOICES))
    assert torch.load(work / STATE_NAME, weights_only=True)["at"]["step"] == 6
    assert train(index, out, replace(CHOICES, resume=True)).steps == 9
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (whole / "out" / name).read_bytes()
    states = [torch.load(f / STATE_NAME, weights_only=True) for f in (work, whole / "out.work")]
    assert_equal(states[0]["model"], states[1]["model"])
    assert (work / CSV_NAME).read_text() == (whole / "out.work" / CSV_NAME).read_text()


def test_a_run_is_resumed_with_its_own_data_and_choices_only(
    index: Path, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.work").mkdir()
    state = (whole / "out.work" / STATE_NAME).read_bytes()
    (tmp_path / "out.work" / STATE_NAME).write_bytes(state)
    with pytest.raises(ConfigError, match="another recipe, network or data"):
        train(index, tmp_path / "out", replace(CHOICES, validation_share=0.2, resume=True))


def test_training_begins_with_the_weights_it_is_given(
    index: Path, whole: Path, tmp_path: Path
) -> None:
    first, out = str(whole / "out"), tmp_path / "out"
    train(index, out, Choices(steps=1, learning_rate=1e-9, begin_with=first, validation_share=0))
    before, after = (load_localiser(str(each)).model for each in (first, out))
    for name, weights in before.state_dict().items():
        torch.testing.assert_close(weights, after.state_dict()[name], atol=1e-5, rtol=1e-3)


def test_annotations_of_other_videos_are_refused(index: Path, tmp_path: Path) -> None:
    annotations = tmp_path / "moments.jsonl"
    line = {"video": "gone", "query": "x", "start_seconds": 0, "end_seconds": 1}
    annotations.write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(ConfigError, match="no query of"):
        train_on_index(index, annotations, tmp_path / "out", Choices(), work=tmp_path / "work")
    assert not (tmp_path / "out").exists()
