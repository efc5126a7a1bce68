"""A tight head as a re-ranker: its order, and an index that has one."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scanonce.models.clip4clip.apply import spread_evenly
from scanonce.models.clip4clip.build import build_head
from scanonce.models.clip4clip.head_files import write_head
from scanonce.models.clip4clip.heads import TightHead
from scanonce.models.encoders.hub import HEAD_FILES, head_digest
from scanonce.search.judging import Judged
from scanonce.search.localise import Proposal, StoredVideo
from scanonce.search.rerank import num_located, open_scoring, rerank
from scanonce.search.result import SearchResult
from scanonce.storage.backup.backup import backup, restore
from scanonce.storage.errors import EncoderError, ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import create_or_check, read_manifest, write_manifest
from scanonce.storage.records import Moment, Span
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from tests.colours import ColourEncoder, write_film
from tests.indexes import build_index, open_engine, publish_all, read_videos

MAX_FRAMES = 5
ASKED = "a green wall"
ALL_CLIPS = {"localiser": "clips", "nms_overlap": 1.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch in one thread: for so small a model, more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_head(folder: Path, *, dim: int) -> TightHead:
    """Write and return a head in evaluation mode whose every parameter has an effect."""
    torch.manual_seed(0)
    head = build_head("tight", dim, MAX_FRAMES)
    assert isinstance(head, TightHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    write_head(head, folder)
    return head.eval()


def digest_of(folder: Path) -> str:
    digest = head_digest([folder / name for name in HEAD_FILES])
    assert digest is not None
    return digest


def slow_score(
    head: TightHead, text: NDArray[np.float32], stored: FrameFeatures, span: Span
) -> float:
    """Score one moment alone, finding the frame on screen at each target one by one."""
    pts = stored.pts_seconds.tolist()
    bounds = span.start_seconds - 5e-7, span.end_seconds - 5e-7
    targets = [k / 2 for k in range(81) if bounds[0] <= k / 2 < bounds[1]]
    targets = targets or [np.floor(span.start_seconds * 2) / 2]
    inside = [max([k for k, at in enumerate(pts) if at <= target], default=0) for target in targets]
    if len(inside) > MAX_FRAMES:
        inside = [inside[k] for k in spread_evenly(0, len(inside), MAX_FRAMES).tolist()]
    frames = torch.from_numpy(stored.frames[inside].astype(np.float32))[None]
    with torch.no_grad():
        scores = head(torch.from_numpy(text)[None], frames, torch.ones(1, len(inside)) > 0)
    return float(scores[0, 0])


# ---------------------------------------------------------------- the order


class FewFrames:
    """A stored video with random frames at given times."""

    def __init__(self, pts_seconds: list[float], seed: int) -> None:
        rng = np.random.default_rng(seed)
        frames = rng.standard_normal((len(pts_seconds), 16)).astype(np.float16)
        self.stored = FrameFeatures(frames, np.array(pts_seconds), 2.0)
        self.duration_seconds = 40.0

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        return self.stored.between(spans)

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        return None


def test_moments_come_in_the_order_of_their_scores_each_by_itself(tmp_path: Path) -> None:
    head = make_head(tmp_path, dim=16)
    videos = [
        FewFrames(np.arange(0.0, 40.0, 0.5).tolist(), 1),
        FewFrames(np.arange(1.0, 40.0, 1.7).tolist(), 2),  # key frames, far apart
        FewFrames(np.arange(0.25, 40.0, 2.0).tolist(), 3),
    ]
    lasting = (0.1, 2.0, 9.0)  # with no frame, with some, with more than the head takes
    embedding = np.zeros(16, np.float32)
    found = [
        Judged(
            Proposal(k % 3, Span(k * 1.3, k * 1.3 + lasting[k // 3 % 3]), k / 100, embedding),
            probability=1 - k / 100,
            evidence=float(k),
        )
        for k in range(30)
    ]
    text = np.random.default_rng(0).normal(scale=3, size=16).astype(np.float32)
    scores = [
        slow_score(head, text, videos[each.candidate].stored, each.span)
        for each in (judged.proposal for judged in found[:20])
    ]
    order = sorted(range(20), key=lambda k: -scores[k])
    assert order != list(range(20))
    assert np.diff(np.sort(scores)).min() > 1e-4, "no two scores are equal"
    scoring = open_scoring(tmp_path, digest_of(tmp_path))
    given: list[StoredVideo] = [*videos]
    ranked = rerank(found, given, text, scoring, top=5)
    expected = [found[k] for k in [*order, *range(20, 30)]]
    assert [each.proposal for each in ranked] == [each.proposal for each in expected]
    assert [each.evidence for each in ranked] == [each.evidence for each in expected]
    assert [each.probability for each in ranked] == [each.probability for each in found], (
        "each rank keeps its probability"
    )
    assert rerank(found[:1], given, text, scoring, top=5) == found[:1]
    assert rerank([], given, text, scoring, top=5) == []


def test_four_times_as_many_as_are_shown_are_found_and_a_hundred_scored_at_most() -> None:
    assert [num_located(top) for top in (1, 10, 25, 40, 100, 300)] == [4, 40, 100, 100, 100, 300]


# ---------------------------------------------------------------- an index with a re-ranker


class Ranked(ColourEncoder):
    """An encoder of colours with a tight head."""

    def __init__(self, folder: Path) -> None:
        self.head = make_head(folder, dim=4)
        self.head_files = tuple(folder / name for name in HEAD_FILES)  # type: ignore[assignment]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ranked]:
    root = tmp_path_factory.mktemp("ranked")
    write_film(root / "films" / "a.mp4", [("green", 5), ("white", 4), ("red", 4)])
    write_film(root / "films" / "b.mp4", [("blue", 4), ("green", 9)])
    encoder = Ranked(root / "encoder")
    index(root, encoder)
    return root, encoder


@pytest.fixture
def layout(template: tuple[Path, Ranked], tmp_path: Path) -> IndexLayout:
    """A copy of the template index."""
    shutil.copytree(template[0] / "index", tmp_path / "index")
    return IndexLayout.of(tmp_path / "index")


@pytest.fixture
def encoder(template: tuple[Path, Ranked]) -> Ranked:
    return template[1]


def index(root: Path, encoder: ColourEncoder) -> None:
    build_index(IndexLayout.of(root / "index"), root / "films", encoder=encoder)


def ask(
    layout: IndexLayout, encoder: ColourEncoder, *, top: int = 40, **settings: object
) -> SearchResult:
    with open_engine(layout, encoder, **{**ALL_CLIPS, **settings}) as engine:
        return engine.search(ASKED, top=top)


def spans_of(moments: Sequence[Moment]) -> list[tuple[int, Span, float]]:
    return [(each.video_id, each.span, each.evidence) for each in moments]


def test_an_index_answers_in_the_order_of_its_tight_head(
    layout: IndexLayout, encoder: Ranked
) -> None:
    manifest = read_manifest(layout)
    assert (manifest.head, manifest.reranker) == (None, head_digest(encoder.head_files))
    as_found = ask(layout, encoder, rerank="off")
    uids = {video.video_id: video.uid for video in read_videos(layout)}
    store, text = FeatureStore(layout.features), encoder.encode_texts([ASKED])[0]

    def scores(moments: Sequence[Moment]) -> list[float]:
        stored = [store.read(uids[each.video_id]) for each in moments]
        return [
            slow_score(encoder.head, text, frames, each.span)
            for frames, each in zip(stored, moments, strict=True)
        ]

    top = 3
    located = as_found.moments[: num_located(top)]
    assert len(as_found.moments) > len(located) == 12
    result = ask(layout, encoder, top=top)
    assert set(spans_of(result.moments)) <= set(spans_of(located))
    # compared by score, because clips of one colour are equal
    expected = sorted(scores(located), reverse=True)[:top]
    assert scores(result.moments) == pytest.approx(expected, abs=1e-5)
    assert scores(located[:top]) != pytest.approx(expected, abs=0.1)
    probabilities = [each.probability for each in located[:top]]
    assert [each.probability for each in result.moments] == probabilities
    assert list(result.timings_ms) == ["text", "judging", "library", "moments", "rerank", "total"]
    *stages, total = result.timings_ms.values()
    assert total == pytest.approx(sum(stages))


def test_without_a_reranker_the_order_is_unchanged(layout: IndexLayout, encoder: Ranked) -> None:
    off = ask(layout, encoder, rerank="off")
    with open_engine(layout, encoder, **ALL_CLIPS) as engine:
        assert engine.search(ASKED, top=40).moments != off.moments
        some = off.moments[0]
        # a similar moment has no text to re-rank by
        assert "rerank" not in engine.similar(some.video_id, some.span).timings_ms
    write_manifest(layout, replace(read_manifest(layout), reranker=None))
    shutil.rmtree(layout.head)
    without = ask(layout, encoder)
    assert replace(without, timings_ms={}) == replace(off, timings_ms={})
    assert list(without.timings_ms) == ["text", "judging", "library", "moments", "total"]
    assert without.timings_ms.keys() == off.timings_ms.keys()


def test_an_engine_follows_an_index_that_gains_a_reranker(
    layout: IndexLayout, encoder: Ranked
) -> None:
    whole = read_manifest(layout)
    expected = spans_of(ask(layout, encoder).moments)
    write_manifest(layout, replace(whole, reranker=None))  # as made by an earlier version
    shutil.rmtree(layout.head)
    with open_engine(layout, encoder, **ALL_CLIPS) as engine:
        assert spans_of(engine.search(ASKED, top=40).moments) != expected
        create_or_check(layout, whole, encoder.head_files)
        assert read_manifest(layout) == whole
        assert spans_of(engine.search(ASKED, top=40).moments) == expected
    with pytest.raises(ManifestMismatch, match="reranker: the index has"):
        create_or_check(layout, replace(whole, reranker="0" * 64))


def test_backup_and_restore_carry_the_reranker(
    layout: IndexLayout, encoder: Ranked, tmp_path: Path
) -> None:
    expected = ask(layout, encoder).moments
    backup(layout, tmp_path / "backup", complete=publish_all)
    shutil.rmtree(layout.root)
    report = restore(tmp_path / "backup", tmp_path / "again", complete=publish_all)
    assert not report.damaged
    assert digest_of(report.layout.head) == read_manifest(report.layout).reranker
    assert ask(report.layout, encoder).moments == expected


def test_a_damaged_reranker_is_an_error_unless_it_is_off(
    layout: IndexLayout, encoder: Ranked
) -> None:
    (layout.head / "head.safetensors").write_bytes(b"rubbish")
    with pytest.raises(EncoderError, match="re-ranks the results of this index"):
        ask(layout, encoder)
    assert ask(layout, encoder, rerank="off").moments
    create_or_check(layout, read_manifest(layout), encoder.head_files)
    assert ask(layout, encoder).moments
