"""One set of tests for all vector indexes, with exact search as the oracle."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from scanonce.storage.errors import IndexDirectoryError, ScanonceError
from scanonce.storage.records import clip_id
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.codes import (
    default_nprobe,
    extend_codes,
    read_codes,
    train_codes,
    write_codes,
)
from scanonce.storage.vectors.flat import FlatIndex, VectorIndex
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.list_fit import NEW_VIDEO_SHARE, ListFit
from scanonce.storage.vectors.rows import ClipRows, Ids, Mask
from tests.oracle import (
    DIM,
    Clips,
    assert_searches_like,
    clips_of,
    lattice,
    oracle,
    rows_of,
)
from tests.topics import found_share


def make_ivfpq(rows: ClipRows) -> IvfPqIndex:
    codes = train_codes(rows)
    return IvfPqIndex(rows, codes, nprobe=default_nprobe(codes.nlist), rescore_depth=100)


def make_library(rows: ClipRows) -> LibraryIndex:
    """Make a library of three parts, the middle one with a dead video."""
    parts: list[Clips] = [{}, {1_000: lattice(np.random.default_rng(5), (9, rows.dim))}, {}]
    for number, (video, clips) in enumerate(by_video(rows)):
        parts[number % 3][video] = clips
    indexes = [FlatIndex(rows_of(dict(sorted(part.items())))) for part in parts]
    return LibraryIndex(indexes, rows.videos, generation=1)


def in_pieces(rows: ClipRows) -> ClipRows:
    """Return the same clips in pieces, one of them empty, and the last video first."""
    *others, last = by_video(rows)
    middle = len(others) // 2
    parts = [dict([last]), dict(others[:middle]), dict(others[middle:])]
    return ClipRows.joined([ClipRows.none(rows.dim), *map(rows_of, parts)], rows.dim)


def by_video(rows: ClipRows) -> Iterator[tuple[int, NDArray[np.float32]]]:
    ends = rows.starts[1:].tolist()
    for video, start, end in zip(rows.videos.tolist(), rows.starts.tolist(), ends, strict=False):
        yield video, rows.gather(np.arange(start, end))


Make: TypeAlias = Callable[[ClipRows], VectorIndex]
Crowd: TypeAlias = tuple[ClipRows, NDArray[np.float32]]

MAKERS: dict[str, Callable[[ClipRows], FlatIndex | IvfPqIndex | LibraryIndex]] = {
    "flat": FlatIndex,
    "ivfpq": make_ivfpq,
    "flat in pieces": lambda rows: FlatIndex(in_pieces(rows)),
    "ivfpq in pieces": lambda rows: make_ivfpq(in_pieces(rows)),
    "library": make_library,
}


pytestmark = pytest.mark.usefixtures("one_faiss_thread")


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    maker: Make = MAKERS[request.param]
    return maker


@pytest.fixture
def clips() -> Clips:
    return {video: clips_of(video) for video in range(1, 41)}


def all_ids(index: VectorIndex) -> Ids:
    """Return the id of every row, rows of dead videos included."""
    if isinstance(index, LibraryIndex):
        return np.concatenate([part.rows.ids(np.arange(len(part))) for part in index._parts])
    assert isinstance(index, FlatIndex | IvfPqIndex)
    return index.rows.ids(np.arange(len(index)))


# ---------------------------------------------------------------- one set of tests for all kinds


@pytest.mark.parametrize("k", [1, 10, 1_000])
def test_search_equals_the_oracle_with_ties_by_id_and_padding(
    make: Make, clips: Clips, k: int
) -> None:
    assert_searches_like(make(rows_of(clips)), clips, k)


def test_all_clips_alike_come_in_the_order_of_their_ids(make: Make) -> None:
    same = {video: np.ones((10, DIM), np.float32) for video in range(1, 31)}
    _, ids = make(rows_of(same)).search(np.ones((1, DIM), np.float32), 25)
    expected = [clip_id(video, n) for video in (1, 2, 3) for n in range(10)]
    assert ids[0].tolist() == expected[:25]


def test_a_lower_id_wins_a_tie_at_the_end_of_the_list(make: Make) -> None:
    # The better rows come last, so that a bounded list must drop some of the tied ones.
    ranked = {video: np.full((1, DIM), 1 + video // 25, np.float32) for video in range(1, 31)}
    _, ids = make(rows_of(ranked)).search(np.ones((1, DIM), np.float32), 10)
    assert (ids[0] >> 20).tolist() == [25, 26, 27, 28, 29, 30, 1, 2, 3, 4]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_mask_leaves_the_allowed_clips_only(make: Make, clips: Clips, share: float) -> None:
    index = make(rows_of(clips))
    queries = lattice(np.random.default_rng(3), (4, DIM))
    allowed: Mask = np.random.default_rng(4).random(index.num_rows) < share
    scores, ids = index.search(queries, 20, allowed=allowed)
    expected = oracle(clips, queries, 20, set(all_ids(index)[allowed].tolist()))
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_gather_returns_the_rows_as_stored(make: Make, clips: Clips) -> None:
    index = make(rows_of(clips))
    ids = all_ids(index)
    rows = np.flatnonzero(ids < clip_id(1_000, 0))[::-7]
    expected = [clips[i >> 20][i & 0xFFFFF] for i in ids[rows].tolist()]
    np.testing.assert_array_equal(index.gather(rows), expected)
    assert index.gather(rows).dtype == np.float32


def test_no_queries_give_no_answers(make: Make, clips: Clips) -> None:
    scores, ids = make(rows_of(clips)).search(np.empty((0, DIM), np.float32), 5)
    assert scores.shape == ids.shape == (0, 5)


@pytest.mark.parametrize(
    ("queries", "k", "num_allowed", "message"),
    [
        (np.ones((1, DIM + 1), np.float32), 1, None, "queries must be"),
        (np.ones(DIM, np.float32), 1, None, "queries must be"),
        (np.full((1, DIM), np.nan, np.float32), 1, None, "finite"),
        (np.ones((1, DIM), np.float32), 0, None, "k must be"),
        (np.ones((1, DIM), np.float32), 1, 3, "mask must be"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    make: Make,
    clips: Clips,
    queries: NDArray[np.float32],
    k: int,
    num_allowed: int | None,
    message: str,
) -> None:
    allowed = None if num_allowed is None else np.ones(num_allowed, np.bool_)
    with pytest.raises(ValueError, match=message):
        make(rows_of(clips)).search(queries, k, allowed=allowed)


def test_search_leaves_the_number_of_threads_as_it_was(make: Make, clips: Clips) -> None:
    import faiss

    index = make(rows_of(clips))
    faiss.omp_set_num_threads(2)
    index.search(np.ones((1, DIM), np.float32), 1)
    after = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    assert after == 2


# ---------------------------------------------------------------- IVF-PQ that does not fall back to exact search


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    """20,000 unit clips in 500 clusters, and 100 queries near some of them."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((500, 64), dtype=np.float32)
    rows = np.repeat(centres, 40, axis=0) + 0.6 * rng.standard_normal((20_000, 64), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rows[::200] + 0.05 * rng.standard_normal((100, 64), np.float32)
    return ClipRows.of(range(200), np.split(rows, 200)), queries


@pytest.fixture(scope="module")
def crowd_ivfpq(crowd: Crowd) -> IvfPqIndex:
    return make_ivfpq(crowd[0])


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_ivfpq_finds_nearly_all_with_exact_scores(
    crowd: Crowd, crowd_ivfpq: IvfPqIndex, share: float
) -> None:
    rows, queries = crowd
    allowed = np.random.default_rng(2).random(len(rows)) < share
    scores, ids = crowd_ivfpq.search(queries, 10, allowed=allowed)
    true_scores, true_ids = FlatIndex(rows).search(queries, 10, allowed=allowed)
    hits = [np.isin(a, b) for a, b in zip(ids, true_ids, strict=True)]
    assert np.mean(hits) >= 0.95
    assert np.isin(ids, rows.ids(np.flatnonzero(allowed))).all()
    np.testing.assert_array_equal(scores[:, 0], true_scores[:, 0])


def test_ivfpq_is_exact_if_few_clips_pass(crowd: Crowd, crowd_ivfpq: IvfPqIndex) -> None:
    rows, queries = crowd
    allowed = np.random.default_rng(2).random(len(rows)) < 0.01
    _, ids = crowd_ivfpq.search(queries, 10, allowed=allowed)
    np.testing.assert_array_equal(ids, FlatIndex(rows).search(queries, 10, allowed=allowed)[1])


@pytest.mark.parametrize(("nlist", "nprobe"), [(8, 8), (1024, 64), (4096, 128), (16384, 512)])
def test_nprobe_follows_nlist(nlist: int, nprobe: int) -> None:
    assert default_nprobe(nlist) == nprobe


def test_codes_of_other_rows_are_refused(clips: Clips) -> None:
    codes = train_codes(rows_of(clips))
    with pytest.raises(ValueError, match="do not fit"):
        IvfPqIndex(rows_of({1: np.ones((20, DIM), np.float32)}), codes, nprobe=1, rescore_depth=10)


def test_rows_refuse_counts_ids_or_widths_that_cannot_be() -> None:
    matrix = np.zeros((3, DIM), np.float16)
    with pytest.raises(ValueError, match="sum to 2"):
        ClipRows((matrix,), np.array([1, 2]), np.array([1, 1]))
    with pytest.raises(ValueError, match="once only"):
        ClipRows((matrix,), np.array([2, 1, 2]), np.array([1, 1, 1]))
    with pytest.raises(ValueError, match="need rows"):
        ClipRows((matrix, matrix[:, 1:]), np.array([1]), np.array([6]))


@pytest.mark.parametrize("num_pieces", [1, 4])
def test_rows_are_taken_in_the_order_asked(clips: Clips, num_pieces: int) -> None:
    rows = rows_of(clips) if num_pieces == 1 else in_pieces(rows_of(clips))
    asked = np.random.default_rng(1).permutation(len(rows))[:50]
    expected = [clips[i >> 20][i & 0xFFFFF] for i in rows.ids(asked).tolist()]
    np.testing.assert_array_equal(rows.take(asked), expected)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks()))[asked], expected)


def test_missing_faiss_names_the_command(monkeypatch: pytest.MonkeyPatch, clips: Clips) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ScanonceError, match="pip install faiss-cpu"):
        FlatIndex(rows_of(clips))


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValidationError, match="ivf_threshold"):
        StorageSettings(ivf_threshold=5)
    with pytest.raises(ValidationError, match="extra"):
        StorageSettings.model_validate({"ivf_treshold": 5_000})


def test_mapped_codes_search_like_those_in_memory_even_after_they_are_unlinked(
    tmp_path: Path, crowd: Crowd, crowd_ivfpq: IvfPqIndex
) -> None:
    rows, queries = crowd
    path = tmp_path / "base.faiss"
    write_codes(crowd_ivfpq.codes, str(path))
    codes = read_codes(str(path))
    path.unlink()
    mapped = IvfPqIndex(rows, codes, nprobe=crowd_ivfpq.nprobe, rescore_depth=100)
    np.testing.assert_array_equal(mapped.search(queries, 10)[1], crowd_ivfpq.search(queries, 10)[1])


def test_codes_that_cannot_be_written_are_an_error_of_ours(
    tmp_path: Path, crowd_ivfpq: IvfPqIndex
) -> None:
    with pytest.raises(IndexDirectoryError, match="cannot be written"):
        write_codes(crowd_ivfpq.codes, str(tmp_path / "missing" / "base.faiss"))


# ---------------------------------------------------------------- extended lists


def halves(rows: ClipRows) -> tuple[ClipRows, ClipRows]:
    """Split the clips in two; the second half are new videos. Both halves have clips of every cluster."""
    videos = list(by_video(rows))
    first = {video: clips[::2] for video, clips in videos}
    second = {video + 1_000: clips[1::2] for video, clips in videos}
    return rows_of(first), rows_of(second)


def test_extended_lists_find_as_much_as_newly_trained_ones(crowd: Crowd) -> None:
    first, second = halves(crowd[0])
    codes = train_codes(first)
    extend_codes(codes, second)
    both = ClipRows.joined([first, second], first.dim)
    # Few probes and few rescored candidates, so that good lists and good codes matter: recall is about .9.
    extended, trained = (
        IvfPqIndex(both, each, nprobe=4, rescore_depth=20) for each in (codes, train_codes(both))
    )
    assert found_share(extended, crowd[1]) >= found_share(trained, crowd[1]) - 0.02


def test_codes_read_into_memory_can_be_extended(tmp_path: Path, clips: Clips) -> None:
    rows = rows_of(clips)
    write_codes(train_codes(rows), str(tmp_path / "base.faiss"))
    codes = read_codes(str(tmp_path / "base.faiss"), mapped=False)
    more = rows_of({41: lattice(np.random.default_rng(6), (30, DIM))})
    extend_codes(codes, more)
    assert codes.ntotal == len(rows) + 30


def fit(**changes: float) -> ListFit:
    """Return the fit of lists of 10,000 clips with 2,000 new ones that are as even and as near."""
    fields = {"trained_clips": 10_000, "trained_cosine": 0.9, "trained_imbalance": 1.6}
    fields |= {"added_clips": 2_000, "added_cosine": 0.9, "imbalance": 1.6}
    return ListFit.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"added_clips": 2_500}, None),
        ({"added_clips": 2_501}, "2501 clips were added to 10000"),
        ({"added_cosine": 0.86}, None),
        ({"added_cosine": 0.85}, "0.850"),
        ({"added_cosine": 0.2, "added_clips": 499}, None),
        ({"strange_clips": 499}, None),
        ({"strange_clips": 500}, "500 of 2000 new clips came in merges"),
        ({"imbalance": 3.1}, None),
        ({"imbalance": 3.3}, "from 1.60 to 3.30"),
        ({"imbalance": 2.9, "trained_imbalance": 1.0}, None),
        ({"imbalance": 8.0, "trained_imbalance": 4.5}, None),
    ],
)
def test_lists_are_trained_again_only_for_a_reason(
    changes: dict[str, float], reason: str | None
) -> None:
    found = fit(**changes).misfit()
    assert (found is None) == (reason is None)
    assert reason is None or reason in str(found)


def test_the_fit_is_measured_over_all_that_was_added(crowd: Crowd) -> None:
    first, second = halves(crowd[0])
    codes = train_codes(first)
    new = ListFit.measured(codes, first)
    same = new.extended(codes, second).extended(codes, second)
    strange = rows_of({1: np.random.default_rng(0).standard_normal((20_000, 64), np.float32)})
    assert new.imbalance == new.trained_imbalance == codes.invlists.imbalance_factor()
    assert same.added_clips == 2 * len(second)
    assert same.added_cosine == pytest.approx(new.trained_cosine / NEW_VIDEO_SHARE, rel=0.1)
    mixed = same.extended(codes, strange)
    alone = new.extended(codes, strange)
    assert mixed.added_cosine == pytest.approx((same.added_cosine + alone.added_cosine) / 2)
    assert alone.added_cosine < 0.85 * same.added_cosine
