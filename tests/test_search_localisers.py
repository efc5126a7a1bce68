"""One conformance suite over all localisers, and tests of the trained one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import MeanPooling
from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.models.vectors import pool_spans, unit
from scanonce.search.localise import Candidate, FixedClips, Localiser, Query, best_apart
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.training_free import TrainingFree
from scanonce.storage.clips import ClipGrid
from scanonce.storage.records import Span
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FrameFeatures

DIM, FPS = 8, 2.0
OVERLAP = 0.3
GRID = ClipGrid((4.0, 8.0))


@dataclass(frozen=True)
class InMemory:
    """A `StoredVideo` in memory."""

    features: FrameFeatures
    duration_seconds: float
    arrays: AnchorArrays | None = None

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        return self.features.between(spans)

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        if self.arrays is None or rows is None:
            return self.arrays
        return AnchorArrays(self.arrays.vectors[rows], self.arrays.norms[rows])


def trained(**changes: object) -> TrainedLocaliser:
    config = SoonetConfig(
        hidden_dim=DIM, snippet_length=4, num_scales=3, fps=FPS, window=8, num_heads=2,
        max_positions=16, frame_dim=DIM, text_dim=DIM,
    )  # fmt: skip
    torch.manual_seed(3)
    model = Soonet(replace(config, **changes))  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return TrainedLocaliser("random", model.eval(), "f" * 64)


def soonet(snap_seconds: float = 0.0, **changes: object) -> SoonetLocaliser:
    return SoonetLocaliser(
        trained(**changes), longest_seconds=60.0, overlap=OVERLAP, snap_seconds=snap_seconds
    )


LOCALISERS: dict[str, Localiser] = {
    "clips": FixedClips(overlap=OVERLAP, pooling=MeanPooling()),
    "training-free": TrainingFree(longest_seconds=60.0, overlap=OVERLAP),
    "soonet": soonet(),
    "soonet, max pooling": soonet(stage2_pool="max"),
    "soonet, clip weight": soonet(clip_weight=1.0),
    "soonet, edges by the curve": soonet(clip_weight=1.0, curve_tiou=0.3),
    "training-free, snapped": TrainingFree(longest_seconds=60.0, overlap=OVERLAP, snap_seconds=1.0),
    "soonet, snapped": soonet(snap_seconds=1.0),
}


@pytest.fixture(params=list(LOCALISERS))
def localiser(request: pytest.FixtureRequest) -> Localiser:
    return LOCALISERS[request.param]


def video(duration: float, seed: int = 0, *, scanned_by: Localiser | None = None) -> InMemory:
    """Return a video of random features with 6 s, from a third of its length on, that are similar to the query."""
    rng = np.random.default_rng(seed)
    pts = np.arange(0, duration, 1 / FPS)
    frames = rng.normal(size=(len(pts), DIM))
    frames[(pts >= duration / 3) & (pts < duration / 3 + 6)] += 4 * query().features
    features = FrameFeatures(frames.astype(np.float16), pts, FPS)
    if not isinstance(scanned_by, SoonetLocaliser):
        return InMemory(features, duration)
    arrays = scanned_by.trained.scan(features.frames, pts, duration)
    return InMemory(features, duration, AnchorArrays(*arrays))


def query(seed: int = 1) -> Query:
    features = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return Query(unit(features), features, features, mean=0.0, std=0.35)


def candidate(stored: InMemory, *stretches: tuple[float, float]) -> Candidate:
    """Return a candidate with the clips in its stretches, which only the localiser "clips" reads."""
    pieces = stretches or ((0.0, stored.duration_seconds),)
    spans = GRID.spans(stored.duration_seconds)
    if not len(stored.features.frames):
        return Candidate(stored, pieces)
    units = unit(stored.features.frames)
    scores = pool_spans(units, stored.features.pts_seconds, spans, FPS) @ query().joint
    clips = [
        (Span(*span), float(score))
        for span, score in zip(spans.tolist(), scores, strict=True)
        if any(a <= span[0] and span[1] <= b for a, b in pieces)
    ]
    return Candidate(stored, pieces, tuple(sorted(clips, key=lambda each: -each[1])))


def test_spans_are_inside_their_video_best_first_and_apart(localiser: Localiser) -> None:
    videos = [video(47.3, seed=4), video(9.1, seed=5), video(120.0, seed=6)]
    found = localiser.locate(query(), [candidate(each) for each in videos], top=30)
    assert found
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    for each in found:
        assert 0 <= each.span.start_seconds < each.span.end_seconds
        assert each.span.end_seconds <= videos[each.candidate].duration_seconds + 1e-9
    for a in found:
        for b in found:
            if a is not b and a.candidate == b.candidate:
                shared = min(a.span.end_seconds, b.span.end_seconds) - max(
                    a.span.start_seconds, b.span.start_seconds
                )
                shorter = min(a.span.duration_seconds, b.span.duration_seconds)
                assert shared <= OVERLAP * shorter + 1e-9


def test_nothing_in_gives_nothing_out(localiser: Localiser) -> None:
    assert localiser.locate(query(), [], top=10) == []
    assert localiser.locate(query(), [Candidate(video(20.0), ())], top=10) == []


def test_a_video_without_frames_has_no_moment_and_a_flat_curve(localiser: Localiser) -> None:
    features = FrameFeatures(np.empty((0, DIM), np.float16), np.empty(0), FPS)
    empty = InMemory(features, 0.0)
    assert localiser.locate(query(), [Candidate(empty, ((0.0, 0.0),))], top=10) == []
    assert len(localiser.curve(query(), empty).scores) == 0


def test_a_video_of_one_frame_has_at_most_its_own_span(localiser: Localiser) -> None:
    features = FrameFeatures(np.ones((1, DIM), np.float16), np.zeros(1), FPS)
    single = InMemory(features, 0.4)
    found = localiser.locate(query(), [candidate(single)], top=10)
    assert len(found) <= 1
    assert all(each.span.end_seconds <= 0.4 for each in found)
    assert len(localiser.curve(query(), single).scores) == 1


def test_the_same_answer_whether_or_not_arrays_were_precomputed(localiser: Localiser) -> None:
    fresh = [candidate(video(40.0, seed)) for seed in (1, 2)]
    stored = [candidate(video(40.0, seed, scanned_by=localiser)) for seed in (1, 2)]
    first = localiser.locate(query(), fresh, top=10)
    assert first == localiser.locate(query(), stored, top=10)
    np.testing.assert_array_equal(
        localiser.curve(query(), fresh[0].video).scores,
        localiser.curve(query(), stored[0].video).scores,
    )


def test_the_same_question_gets_the_same_answer(localiser: Localiser) -> None:
    candidates = [candidate(video(60.0, seed)) for seed in range(3)]
    first = localiser.locate(query(), candidates, top=10)
    assert first == localiser.locate(query(), candidates, top=10)


def test_equal_moments_keep_the_order_of_their_videos(localiser: Localiser) -> None:
    twins = [candidate(video(30.0, seed=7)) for _ in range(3)]
    found = localiser.locate(query(), twins, top=30)
    best = [each for each in found if each.score == found[0].score]
    assert [each.candidate for each in best] == [0, 1, 2]


def test_moments_are_found_inside_the_stretches_only(localiser: Localiser) -> None:
    stored = video(120.0, scanned_by=localiser)
    found = localiser.locate(query(), [candidate(stored, (0.0, 20.0), (80.0, 110.0))], top=10)
    assert found
    for each in found:
        middle = (each.span.start_seconds + each.span.end_seconds) / 2
        assert (
            middle <= 28.0 or 72.0 <= middle <= 118.0
        )  # a boundary may move by an anchor's length


def test_far_frames_do_not_change_the_spans_of_a_stretch_found_by_frames_alone() -> None:
    for name in ("clips", "training-free"):
        short, long = video(60.0, seed=9), video(600.0, seed=10)
        frames = long.features.frames.copy()
        frames[:120] = short.features.frames
        longer = InMemory(FrameFeatures(frames, long.features.pts_seconds, FPS), 600.0)
        at = (10.0, 50.0)
        first = LOCALISERS[name].locate(query(), [candidate(short, at)], top=5)
        second = LOCALISERS[name].locate(query(), [candidate(longer, at)], top=5)
        assert [each.span for each in first] == [each.span for each in second]


def test_the_curve_covers_the_video_and_is_finite(localiser: Localiser) -> None:
    for duration in (0.4, 5.0, 61.7):
        curve = localiser.curve(query(), video(duration))
        assert len(curve.edges_seconds) == len(curve.scores) + 1
        assert curve.edges_seconds[0] == 0.0
        assert curve.edges_seconds[-1] == pytest.approx(duration)
        assert (np.diff(curve.edges_seconds) > 0).all()
        assert np.isfinite(curve.scores).all()


def test_frames_similar_to_the_query_are_found() -> None:
    for name in ("clips", "training-free"):
        (best, *_) = LOCALISERS[name].locate(query(), [candidate(video(90.0, seed=3))], top=3)
        assert best.span.tiou(Span(30, 36)) > 0.45


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.3, 90.0), st.integers(1, 12))
def test_any_random_video_gives_proper_spans(seed: int, duration: float, top: int) -> None:
    for each in LOCALISERS.values():
        for found in each.locate(query(seed), [candidate(video(duration, seed))], top=top):
            assert 0 <= found.span.start_seconds < found.span.end_seconds <= duration + 1e-9
            assert np.isfinite(found.score)


# ------------------------------------------------ SOONet


def test_scores_are_those_of_both_stages_as_the_network_computes_them() -> None:
    localiser = trained()
    stored = video(64.0, seed=2)
    vectors, _ = localiser.scan(stored.features.frames, stored.features.pts_seconds, 64.0)
    texts = TextFeatures(query().features[None], query().states[None])
    collapsed = vectors.astype(np.float32) @ localiser.model.query_vector(localiser.texts(texts)[0])
    model = localiser.model
    with torch.inference_mode():
        frames = torch.from_numpy(stored.features.frames.astype(np.float32))
        halves = model.query_vectors(torch.from_numpy(query().states[None]))[0].reshape(2, DIM)
        plain = []
        for scale, context in enumerate(model.contexts(frames[None])):
            length = localiser.grid.lengths[scale]
            content = model.contents(frames.reshape(-1, length, DIM))
            first = torch.nn.functional.normalize(context[0], dim=-1) @ halves[0]
            second = (torch.nn.functional.normalize(content, dim=-1) @ halves[1]).mean(dim=1)
            plain.append(first + second)
    np.testing.assert_allclose(collapsed, torch.cat(plain).numpy(), atol=3e-3)  # stored in fp16


def test_a_gap_in_a_video_is_filled_so_that_anchors_keep_their_times() -> None:
    localiser = trained()
    whole = video(64.0, seed=2)
    keep = np.ones(128, bool)
    keep[41:60] = False
    frames = whole.features.frames.copy()
    frames[41:60] = frames[40]  # the picture on screen
    gap = localiser.scan(whole.features.frames[keep], whole.features.pts_seconds[keep], 64.0)
    filled = localiser.scan(frames, whole.features.pts_seconds, 64.0)
    np.testing.assert_array_equal(gap[0], filled[0])


def test_moments_of_zero_length_and_weaker_copies_are_dropped() -> None:
    from scanonce.search.localise import Proposal

    spans = [(Span(0, 10), 0.5), (Span(2, 6), 0.9), (Span(4, 4), 2.0), (Span(20, 30), 0.1)]
    apart = np.zeros(2, np.float32)
    proposals = [Proposal(0, span, score, apart) for span, score in spans]
    other = Proposal(1, Span(2, 6), 0.9, apart)
    kept = best_apart([*proposals, other], overlap=OVERLAP)
    assert kept == [proposals[1], other, proposals[3]]
