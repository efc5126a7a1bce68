"""Settings of a search that are chosen by measuring, and lists that no longer fit their clips."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.derived import DerivedVectors
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, create_or_check
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors import publish as generations
from scanonce.storage.vectors.codes import (
    held_out_rows,
    read_codes,
    train_codes,
    training_rows,
)
from scanonce.storage.vectors.flat import FlatIndex
from scanonce.storage.vectors.generation import Generation, TunedSettings, newest_generation
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.list_fit import ADDED_PROBES, MIN_COSINE_SHARE, ListFit
from scanonce.storage.vectors.publish import open_library
from scanonce.storage.vectors.recall import (
    Point,
    measure,
    num_affordable,
    recall,
    recall_lower_bound,
    synthetic_queries,
)
from scanonce.storage.vectors.rows import ClipRows
from scanonce.storage.vectors.tuning import tune
from scanonce.ui.commands.tune import everyday_queries, read_queries
from tests.command import scanonce
from tests.oracle import disk_is_full
from tests.topics import (
    CLIPS_A_VIDEO,
    DIM,
    SETTINGS,
    bring_up,
    found_share,
    near_topics,
    rows_of_topics,
    strange_clips,
    topic_clips,
    topic_clips_of,
)

pytestmark = pytest.mark.usefixtures("one_faiss_thread")


@pytest.fixture(scope="module")
def rows() -> ClipRows:
    """12,000 clips: more than are searched exactly."""
    return rows_of_topics(200)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return near_topics()


# ---------------------------------------------------------------- measuring


def test_the_cheapest_point_that_reaches_the_target_is_chosen(
    rows: ClipRows, queries: NDArray[np.float32]
) -> None:
    index = IvfPqIndex(rows, train_codes(rows), nprobe=1, rescore_depth=10)
    seen: list[Point] = []
    measured = measure(index, queries, target_recall=0.9, on_progress=seen.append)
    assert list(measured.points) == seen
    assert [point.nprobe for point in seen] == sorted({point.nprobe for point in seen})
    enough = [point for point in seen if point.recall_lower_bound >= 0.9]
    assert measured.chosen == min(enough, key=lambda point: point.cpu_ms)
    assert all(point.cpu_ms > 0 for point in seen)
    tuned = IvfPqIndex(
        rows,
        index.codes,
        nprobe=measured.chosen.nprobe,
        rescore_depth=measured.chosen.rescore_depth,
    )
    assert found_share(tuned, queries) == pytest.approx(measured.chosen.recall, abs=0.01)


def test_the_highest_recall_is_chosen_if_no_setting_reaches_the_target(
    rows: ClipRows, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.storage.vectors.recall.DEPTHS", (12,))
    index = IvfPqIndex(rows, train_codes(rows, "ivfpq"), nprobe=1, rescore_depth=10)
    measured = measure(index, queries, target_recall=0.999)
    assert measured.chosen.recall == max(point.recall for point in measured.points) < 0.999


def test_excluded_clips_do_not_count(rows: ClipRows, queries: NDArray[np.float32]) -> None:
    index = IvfPqIndex(rows, train_codes(rows), nprobe=1, rescore_depth=10)
    allowed = np.arange(len(rows)) % 10 > 0
    measured = measure(index, queries, target_recall=0.9, allowed=allowed)
    assert measured.chosen.recall >= 0.9


def test_recall_is_the_mean_share_of_the_true_ones() -> None:
    truth = np.array([[1, 2], [3, 4], [5, -1], [-1, -1]])
    found = np.array([[2, 1], [9, 4], [9, -1], [7, 8]])
    assert recall(found, truth) == pytest.approx((1 + 0.5 + 0) / 3)
    assert recall(found[3:], truth[3:]) == 1.0


def test_the_lower_bound_is_below_the_recall_and_closer_with_more_queries() -> None:
    rng = np.random.default_rng(1)
    shares = np.minimum(1.0, rng.integers(4, 14, 20_000) / 10)
    means = {}
    for count in (32, 128, 512):
        draws = [rng.choice(shares, count) for _ in range(400)]
        bounds = np.array([recall_lower_bound(draw) for draw in draws])
        assert (bounds < [draw.mean() for draw in draws]).all()
        assert (bounds <= shares.mean()).mean() > 0.93
        means[count] = bounds.mean()
    assert means[32] < means[128] < means[512] < shares.mean()
    assert recall_lower_bound(np.ones(32)) < recall_lower_bound(np.ones(512)) < 0.999
    assert recall_lower_bound(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("num_rows", "num"), [(0, 512), (1_000_000, 512), (2_000_000, 268), (100_000_000, 32)]
)
def test_fewer_queries_are_asked_of_more_clips(num_rows: int, num: int) -> None:
    assert num_affordable(512, num_rows) == num


def test_synthetic_queries_are_unit_far_from_the_clips_and_nearest_to_different_ones(
    rows: ClipRows,
) -> None:
    synthetic = synthetic_queries(rows, 64)
    np.testing.assert_allclose(np.linalg.norm(synthetic, axis=1), 1, rtol=1e-5)
    assert synthetic.dtype == np.float32
    scores, ids = FlatIndex(rows).search(synthetic, 1)
    assert scores.max() < 0.8
    assert len(np.unique(ids >> 20)) > 20
    np.testing.assert_array_equal(synthetic, synthetic_queries(rows, 64))


# ---------------------------------------------------------------- tuning an index on disk


def tuned_at(vectors: Path) -> TunedSettings | None:
    generation = newest_generation(vectors, dim=DIM)
    assert generation is not None
    return generation.info.tuned


def test_an_exact_index_needs_no_tuning(tmp_path: Path) -> None:
    assert tune(tmp_path, DIM, []) is None
    bring_up(tmp_path, 3)
    assert tune(tmp_path, DIM, range(3)) is None
    assert newest_generation(tmp_path, dim=DIM) is not None
    assert tuned_at(tmp_path) is None


def test_the_chosen_settings_are_published_used_and_kept(
    tmp_path: Path, queries: NDArray[np.float32]
) -> None:
    before = bring_up(tmp_path, 200)
    points: list[Point] = []
    tuned = tune(
        tmp_path, DIM, range(200), target_recall=0.9, queries=queries, on_progress=points.append
    )
    assert tuned is not None
    assert (tuned.clips, tuned.num_queries, tuned.queries) == (12_000, 96, "text")
    assert tuned.recall >= tuned.target_recall == 0.9
    assert (tuned.nprobe, tuned.rescore_depth) in [(p.nprobe, p.rescore_depth) for p in points]
    after = newest_generation(tmp_path, dim=DIM)
    assert after is not None
    assert (after.number, after.info.tuned) == (2, tuned)
    assert after.info.segments == before.info.segments
    assert (after.path / "base.faiss").stat().st_nlink == 2
    np.testing.assert_array_equal(after.tuning_queries(), queries.astype(np.float16))
    for last in (201, 215):  # linked, then merged
        grown = bring_up(tmp_path, last)
        assert grown.info.tuned == tuned
        assert (len(grown.delta) == 0) == (last == 215)
        library = open_library(tmp_path, dim=DIM, live_videos=range(last), load_clips=topic_clips)
        base = library._parts[0]
        assert isinstance(base, IvfPqIndex)
        probes = ADDED_PROBES if last == 215 else 1
        assert (base.nprobe, base.rescore_depth) == (probes * tuned.nprobe, tuned.rescore_depth)


def test_synthetic_queries_are_the_default_and_dead_clips_do_not_count(tmp_path: Path) -> None:
    bring_up(tmp_path, 200)
    tuned = tune(tmp_path, DIM, range(10, 200), target_recall=0.8)
    assert tuned is not None
    assert (tuned.queries, tuned.num_queries) == ("stand-in", 512)


def test_a_search_is_tuned_again_after_training_only_if_it_was_tuned(
    tmp_path: Path, queries: NDArray[np.float32]
) -> None:
    bring_up(tmp_path, 200)
    plain = SETTINGS.model_copy(update={"kind": "ivfpq"})
    assert bring_up(tmp_path, 200, plain).info.tuned is None
    first = tune(tmp_path, DIM, range(200), target_recall=0.9, queries=queries)
    again = bring_up(tmp_path, 200, SETTINGS).info.tuned
    assert first is not None
    assert again is not None
    assert again.measured > first.measured
    assert (again.target_recall, again.clips) == (0.9, 12_000)
    assert bring_up(tmp_path, 200, SETTINGS.model_copy(update={"kind": "flat"})).info.tuned is None


def test_an_index_that_is_built_again_is_tuned_as_the_one_before(
    tmp_path: Path, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up(tmp_path, 200, SETTINGS)
    first = tune(tmp_path, DIM, range(200), target_recall=0.9, queries=queries)
    videos = [SimpleNamespace(video_id=number) for number in range(200)]
    catalog = SimpleNamespace(
        live_video_ids=lambda: np.arange(200), videos=lambda ids: [videos[ids[0]]]
    )
    vectors = DerivedVectors(tmp_path, DIM, topic_clips_of)
    (codes_file,) = tmp_path.glob("*2/base.faiss")
    codes_file.write_bytes(bytes(codes_file.stat().st_size))
    vectors.rebuild(cast(Catalog, catalog), SETTINGS)
    again = tuned_at(tmp_path)
    assert first is not None
    assert again is not None
    assert (again.target_recall, again.queries) == (0.9, "text")
    assert again.measured > first.measured
    kept = newest_generation(tmp_path, dim=DIM)
    assert kept is not None
    np.testing.assert_array_equal(kept.tuning_queries(), queries.astype(np.float16))
    (tmp_path / "0000000003" / "tuning_queries.npy").unlink()
    vectors.rebuild(cast(Catalog, catalog), SETTINGS)
    assert tuned_at(tmp_path) is None, "the queries of the tuning are gone"


@pytest.mark.parametrize("target", [0.49, 1.0])
def test_a_target_out_of_bounds_is_refused(tmp_path: Path, target: float) -> None:
    with pytest.raises(ValueError, match=r"0\.5 to 0\.999"):
        tune(tmp_path, DIM, [], target_recall=target)


def test_queries_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    bring_up(tmp_path, 3)
    with pytest.raises(ValueError, match="queries must be"):
        tune(tmp_path, DIM, [], queries=np.ones((3, DIM + 1), np.float32))
    with pytest.raises(ManifestMismatch):
        tune(tmp_path, DIM + 1, [])


def test_a_tuning_that_cannot_be_written_leaves_the_old_generation(
    tmp_path: Path, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up(tmp_path, 200)

    monkeypatch.setattr(generations, "sync", disk_is_full)
    with pytest.raises(IndexDirectoryError, match="No space left"):
        tune(tmp_path, DIM, range(200), queries=queries)
    assert tuned_at(tmp_path) is None


# ---------------------------------------------------------------- the command


class Sentences:
    """Encodes a text as a vector near a clip of a drawn video."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.concatenate([topic_clips(len(text) * 7 % 200)[:1] for text in texts])


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexLayout:
    """An index of 200 videos whose clips are not published."""
    layout = IndexLayout(tmp_path / "index")
    manifest = Manifest(
        encoder="drawn",
        fingerprint="drawn-1",
        dim=DIM,
        sampling="uniform",
        sample_fps=2.0,
        clip_scales_seconds=(4.0,),
        clip_stride_ratio=0.5,
        localiser=None,
        anchors=None,
    )
    create_or_check(layout, manifest)
    Catalog.open(layout.catalog).close()
    monkeypatch.setattr(Catalog, "live_video_ids", lambda self: np.arange(200))
    monkeypatch.setattr(
        "scanonce.models.encoders.load.load_encoder", lambda *args, **options: Sentences()
    )
    return layout


def test_the_command_shows_the_measurements_and_the_choice(index: IndexLayout) -> None:
    bring_up(index.vectors, 200)
    before = index.manifest.stat().st_mtime_ns
    text = scanonce("tune", "--index", index.root, "--target-recall", 0.9).stdout
    tuned = tuned_at(index.vectors)
    assert tuned is not None
    assert (tuned.queries, tuned.num_queries) == ("text", 512)
    assert "recall@10" in text
    assert text.count("taken") == 1
    assert f"{tuned.recall:.3f}" in text
    assert "512 queries on 12,000 clips" in text
    assert index.manifest.stat().st_mtime_ns > before


def test_the_command_says_if_no_setting_reaches_the_target(
    index: IndexLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.storage.vectors.recall.DEPTHS", (11,))
    bring_up(index.vectors, 200, SETTINGS.model_copy(update={"kind": "ivfpq"}))
    queries = tmp_path / "queries.txt"
    queries.write_text("a cat\ntwo cats\n")
    options = ("--target-recall", 0.999, "--sentences", queries)
    text = scanonce("tune", "--index", index.root, *options).stdout
    assert "No setting surely finds 0.999" in text
    assert 'storage.kind = "flat"' in text


def test_the_command_leaves_an_exact_index_alone(index: IndexLayout) -> None:
    bring_up(index.vectors, 3)
    ran = scanonce("tune", "--index", index.root, "--target-recall", 0.9)
    assert ran.returncode == 0
    assert tuned_at(index.vectors) is None
    assert "exact, nothing needs tuning" in ran.stdout


def test_everyday_queries_are_many_and_mixed() -> None:
    queries = everyday_queries()
    assert len(set(queries)) == len(queries) == 512
    assert len({each.split()[-1] for each in queries[:32]}) > 2


def test_queries_are_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_text("a dog\n\n  a cat \n")
    assert read_queries(file) == ["a dog", "a cat"]
    file.write_text("\n")
    for wrong in (file, tmp_path / "missing.txt"):
        with pytest.raises(IndexDirectoryError, match="queries"):
            read_queries(wrong)


# ---------------------------------------------------------------- drift


def test_held_out_videos_have_the_cosine_of_new_videos(rows: ClipRows) -> None:
    few = ClipRows(rows.pieces, np.arange(3), np.array([3_000, 4_000, 5_000]))
    assert len(held_out_rows(few)) == 0
    assert len(training_rows(few, 10)) == 400
    rows = ClipRows(rows.pieces, np.arange(400), np.full(400, CLIPS_A_VIDEO // 2))
    held_out, trained = held_out_rows(rows), training_rows(rows, 512)
    assert len(held_out) == 8 * CLIPS_A_VIDEO // 2
    assert not np.isin(rows.ids(held_out) >> 20, rows.ids(trained) >> 20).any()
    made = train_codes(rows)
    new = ClipRows.of(range(600, 640), [topic_clips(video) for video in range(600, 640)])
    fit = ListFit.measured(made, rows).extended(made, new)
    assert fit.added_cosine == pytest.approx(fit.trained_cosine, rel=0.04)


def test_topics_never_seen_in_training_are_found_after_training_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StorageSettings(ivf_threshold=11_000, fold_rows=3_000)

    def grow(folder: Path) -> Generation:
        bring_up(folder, 200, settings, load=strange_clips)
        return bring_up(folder, 400, settings, load=strange_clips)

    new_topics = np.concatenate([strange_clips(video)[:1] for video in range(200, 400)])
    with monkeypatch.context() as patch:  # the fit of these lists is never checked
        patch.setattr(ListFit, "misfit", lambda self: None)
        drifted = grow(tmp_path / "old")
    trained = grow(tmp_path / "new")
    assert drifted.info.fit is not None
    assert trained.info.fit is not None
    assert (drifted.info.fit.trained_clips, trained.info.fit.trained_clips) == (12_000, 24_000)
    shares = []
    for generation in (drifted, trained):
        made = read_codes(str(generation.path / "base.faiss"))
        base = IvfPqIndex(generation.base, made, nprobe=4, rescore_depth=200)
        shares.append(found_share(base, new_topics))
    assert shares[1] > shares[0] + 0.05


def test_a_late_burst_of_strange_clips_is_not_lost_in_the_mean(rows: ClipRows) -> None:
    made = train_codes(rows)
    fit = ListFit.measured(made, rows)
    familiar = ClipRows.of(range(300, 320), [topic_clips(video) for video in range(300, 320)])
    for _ in range(2):
        fit = fit.extended(made, familiar)
    assert (fit.strange_clips, fit.misfit()) == (0, None)
    burst = ClipRows.of(range(500, 512), [strange_clips(video) for video in range(500, 512)])
    fit = fit.extended(made, burst)
    assert fit.added_cosine > MIN_COSINE_SHARE * fit.trained_cosine  # the mean of 3,120 clips
    assert fit.strange_clips == 720
    assert "came in merges" in (fit.misfit() or "")
