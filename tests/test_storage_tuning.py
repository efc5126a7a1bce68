"""Kinds of codes by configuration and size, and settings of a search that are chosen by measuring."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from scanonce.models.runtime import use_one_thread
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.derived import DerivedVectors
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, create_or_check
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors import codes
from scanonce.storage.vectors import publish as generations
from scanonce.storage.vectors.codes import (
    coded_form,
    factory,
    form_of,
    held_out_rows,
    read_codes,
    train_codes,
    training_rows,
    write_codes,
)
from scanonce.storage.vectors.flat import FlatIndex, search_exactly
from scanonce.storage.vectors.generation import Generation, TunedSettings, newest_generation
from scanonce.storage.vectors.gpu import (
    NO_GPU,
    GpuUse,
    build_codes,
    codes_bytes,
    load_on_gpu,
    num_gpus,
    why_not,
)
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.list_fit import ADDED_PROBES, MIN_COSINE_SHARE, ListFit
from scanonce.storage.vectors.publish import open_library, publish
from scanonce.storage.vectors.recall import (
    RECALL_AT,
    Point,
    measure,
    num_affordable,
    recall,
    stand_in_queries,
    sure_recall,
)
from scanonce.storage.vectors.rows import ClipRows
from scanonce.storage.vectors.tuning import tune
from scanonce.ui.commands.tune import everyday_sentences, read_sentences, run_tune
from tests.oracle import one_training_thread

DIM = 32
CLIPS_A_VIDEO = 60
SETTINGS = StorageSettings(ivf_threshold=11_000, fold_rows=600)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with one_training_thread():
        yield


def topic_clips(video: int, first_topic: int = 0) -> NDArray[np.float32]:
    """60 unit clips around one of 100 topics."""
    rng = np.random.default_rng(video)
    topic = np.random.default_rng((first_topic, video % 100)).standard_normal(DIM)
    clips = topic + 0.7 * rng.standard_normal((CLIPS_A_VIDEO, DIM))
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    unit: NDArray[np.float32] = clips.astype(np.float32, copy=False)
    return unit


def topic_clips_of(video: Video) -> NDArray[np.float32]:
    return topic_clips(video.video_id)


def strange_clips(video: int) -> NDArray[np.float32]:
    """Videos past the first 200 show topics that those do not."""
    return topic_clips(video, first_topic=0 if video < 200 else 1)


def rows_of_topics(num_videos: int) -> ClipRows:
    return ClipRows.of(range(num_videos), [topic_clips(video) for video in range(num_videos)])


@pytest.fixture(scope="module")
def rows() -> ClipRows:
    """12,000 clips: more than are answered exactly."""
    return rows_of_topics(200)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    """Near one clip of each of 96 topics."""
    near = np.concatenate([topic_clips(video)[:1] for video in range(96)])
    near += 0.1 * np.random.default_rng(0).standard_normal(near.shape, np.float32)
    return near


def found_share(index: IvfPqIndex, queries: NDArray[np.float32]) -> float:
    _, found = index.search(queries, RECALL_AT)
    return recall(found, search_exactly(index.rows, queries, RECALL_AT)[1])


# Kinds


@pytest.mark.parametrize(
    ("num_rows", "dim", "form", "name"),
    [
        (1_000_000, 512, "ivfpq-fastscan", "IVF4096,PQ256x4fs"),
        (1_000_000, 512, "ivfpq", "IVF4096,PQ64np"),
        (1_000_000, 768, "ivfpq", "IVF4096,PQ96np"),
        (1_000_000, 1024, "ivfpq", "IVF4096,PQ64np"),
        (1_000, 7, "ivfpq", "IVF128,PQ1np"),
        (10_000_000, 512, "ivfpq", "IVF16384_HNSW32,PQ64np"),
        (10_000_000, 512, "ivfpq-fastscan", "IVF16384_HNSW32,PQ256x4fs"),
    ],
)
def test_the_factory_follows_rows_dim_and_form(
    num_rows: int, dim: int, form: codes.CodedForm, name: str
) -> None:
    matrix = np.broadcast_to(np.float16(0), (num_rows, dim))
    many = ClipRows((matrix,), np.array([1]), np.array([num_rows]))
    assert factory(many, form) == name
    assert form_of(name) == form


@pytest.mark.parametrize(
    ("kind", "num_rows", "gpu", "form"),
    [
        ("auto", 3_999_999, False, "ivfpq-fastscan"),
        ("auto", 4_000_000, False, "ivfpq"),
        ("auto", 50_000, True, "ivfpq"),
        ("ivfpq", 50_000, False, "ivfpq"),
        ("ivfpq-fastscan", 10_000_000, True, "ivfpq-fastscan"),
    ],
)
def test_auto_goes_by_size_and_gpu(
    kind: codes.Kind, num_rows: int, gpu: bool, form: codes.CodedForm
) -> None:
    assert coded_form(kind, num_rows, gpu=gpu) == form


def bring_up(
    vectors: Path, num_videos: int, settings: StorageSettings = SETTINGS, first: int = 0
) -> Generation:
    made = publish(vectors, range(first, num_videos), topic_clips, dim=DIM, settings=settings)
    assert made is not None
    return made


def test_a_kind_that_was_configured_takes_effect_with_the_next_publish(tmp_path: Path) -> None:
    names = []
    for kind in ("auto", "ivfpq", "ivfpq", "flat", "flat", "ivfpq-fastscan"):
        settings = SETTINGS.model_copy(update={"kind": kind})
        made = bring_up(tmp_path, 200, settings)
        names.append((made.number, made.info.kind, made.info.factory))
    assert names == [
        (1, "ivfpq", "IVF512,PQ16x4fs"),
        (2, "ivfpq", "IVF512,PQ4np"),
        (2, "ivfpq", "IVF512,PQ4np"),
        (3, "flat", None),
        (3, "flat", None),
        (4, "ivfpq", "IVF512,PQ16x4fs"),
    ]


def test_auto_changes_to_mapped_codes_as_the_library_grows_and_not_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "MAPPED_ROWS", 24_000)
    forms = [
        form_of(bring_up(tmp_path, last, first=first).info.factory or "")
        for first, last in [(0, 200), (0, 401), (10, 401), (215, 401)]
    ]
    assert forms == ["ivfpq-fastscan", "ivfpq", "ivfpq", "ivfpq-fastscan"]


@pytest.mark.parametrize("form", ["ivfpq", "ivfpq-fastscan"])
@pytest.mark.parametrize("hnsw", [False, True])
def test_every_form_finds_nearly_all_extends_and_survives_its_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: ClipRows,
    queries: NDArray[np.float32],
    form: codes.CodedForm,
    hnsw: bool,
) -> None:
    monkeypatch.setattr(codes, "HNSW_CELLS", 512 if hnsw else 10**9)
    path = str(tmp_path / "base.faiss")
    write_codes(train_codes(rows, form), path)
    index = IvfPqIndex(rows, read_codes(path), nprobe=64, rescore_depth=500)
    assert ("HNSW" in factory(rows, form)) == hnsw
    assert found_share(index, queries) > 0.9
    extended = read_codes(path, mapped=False)
    more = ClipRows.of([1_000], [topic_clips(1_000)])
    codes.extend_codes(extended, more)
    write_codes(extended, path)
    both = ClipRows.joined([rows, more], DIM)
    index = IvfPqIndex(both, read_codes(path), nprobe=64, rescore_depth=500)
    assert found_share(index, queries) > 0.9
    _, ids = index.search(topic_clips(1_000)[:1], 1)
    assert ids[0, 0] == 1_000 << 20


_MEMORY_OF_OPENING = """
import sys
from scanonce.storage.vectors.codes import read_codes
def resident():
    pages = open("/proc/self/statm").read().split()[1]
    return int(pages) * 4096
read_codes(sys.argv[2])  # what FAISS itself takes
before = resident()
codes = read_codes(sys.argv[1])
print(resident() - before, codes.ntotal)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_plain_codes_stay_on_disk_when_they_are_opened(tmp_path: Path, rows: ClipRows) -> None:
    made = train_codes(rows, "ivfpq")
    write_codes(made, str(tmp_path / "small"))
    for _ in range(60):
        codes.extend_codes(made, ClipRows((rows.pieces[0],), np.array([1]), np.array([len(rows)])))
    write_codes(made, str(tmp_path / "large"))
    command = [sys.executable, "-c", _MEMORY_OF_OPENING, f"{tmp_path}/large", f"{tmp_path}/small"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    grown, clips = map(int, told.split())
    assert clips == 61 * len(rows)
    assert (tmp_path / "large").stat().st_size > 8_000_000
    assert grown < 2_000_000


# Many queries at once


@pytest.mark.parametrize("kind", ["flat", "ivfpq", "ivfpq-fastscan", "library"])
@pytest.mark.parametrize("share", [1.0, 0.95, 0.2])
def test_many_queries_are_answered_as_one_by_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: ClipRows,
    queries: NDArray[np.float32],
    kind: str,
    share: float,
) -> None:
    index: FlatIndex | IvfPqIndex | LibraryIndex
    if kind == "flat":
        index = FlatIndex(rows)
    elif kind == "library":
        bring_up(tmp_path, 200)
        bring_up(tmp_path, 203)
        index = open_library(tmp_path, dim=DIM, live_videos=range(5, 205), load_clips=topic_clips)
    else:
        made = train_codes(rows, form_of("x4fs" if kind.endswith("fastscan") else ""))
        index = IvfPqIndex(rows, made, nprobe=16, rescore_depth=50)
    many = np.concatenate([queries, queries[::-1] * np.float32(0.5), queries[:3]])
    allowed = np.random.default_rng(2).random(index.num_rows) < share if share < 1 else None
    with monkeypatch.context() as patch:
        patch.setattr("scanonce.storage.vectors.flat.num_threads", lambda: 4)
        scores, ids = index.search(many, 20, allowed=allowed)
    single = [index.search(query[None], 20, allowed=allowed) for query in many]
    np.testing.assert_array_equal(ids, np.concatenate([each for _, each in single]))
    np.testing.assert_array_equal(scores, np.concatenate([each for each, _ in single]))


def test_many_queries_use_all_cores_whatever_torch_was_told(
    rows: ClipRows, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_one_thread()  # which FAISS hears of, too
    used: list[int] = []

    class Noted(ThreadPoolExecutor):
        def __init__(self, max_workers: int) -> None:
            used.append(max_workers)
            super().__init__(max_workers)

    monkeypatch.setattr("scanonce.storage.vectors.flat.ThreadPoolExecutor", Noted)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    for wanted in ("", "2", "8"):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        FlatIndex(rows).search(queries, 5)
    assert used == [3, 2, 3]


def test_exact_search_without_a_copy_finds_what_the_flat_index_finds(
    rows: ClipRows, queries: NDArray[np.float32]
) -> None:
    allowed = np.random.default_rng(2).random(len(rows)) < 0.5
    for mask in (None, allowed, np.zeros(len(rows), np.bool_)):
        scores, ids = search_exactly(rows, queries, 7, allowed=mask)
        alone = search_exactly(rows, queries[:1], 7, allowed=mask)
        np.testing.assert_array_equal(alone[1], ids[:1])
        np.testing.assert_array_equal(alone[0], scores[:1])
        expected = FlatIndex(rows).search(queries, 7, allowed=mask)
        np.testing.assert_array_equal(ids, expected[1])
        np.testing.assert_array_equal(scores, expected[0])


# A GPU


ENABLED = GpuUse(enabled=True)
GB = 1 << 30


@pytest.mark.parametrize(
    ("use", "facts", "reason"),
    [
        (ENABLED, {}, None),
        (NO_GPU, {}, "off"),
        (ENABLED, {"gpus": 0}, "no GPU"),
        (ENABLED, {"nbits": 4}, "4-bit codes"),
        (ENABLED, {"need_bytes": 7 * GB}, "7168 MB there, 6553 MB may"),
        (GpuUse(enabled=True, memory_mb=900), {}, "1024 MB there, 900 MB may"),
        (GpuUse(enabled=True, memory_mb=2_000), {}, None),
        (GpuUse(enabled=True, memory_mb=2_000), {"free_bytes": GB - 1}, "1023 MB may"),
    ],
)
def test_a_gpu_takes_what_it_can_search_and_hold(
    use: GpuUse, facts: dict[str, int], reason: str | None
) -> None:
    said = why_not(use, **({"gpus": 1, "nbits": 8, "need_bytes": GB, "free_bytes": 8 * GB} | facts))
    assert (said is None) == (reason is None)
    assert reason is None or reason in str(said)


def test_memory_on_a_gpu_grows_with_the_clips() -> None:
    assert codes_bytes(10**8, 512, 64, 32_768) == pytest.approx(7.2e9 + 512 * 2**20, rel=0.02)


def test_the_settings_say_whether_a_gpu_may_be_used() -> None:
    assert StorageSettings().gpu_use == ENABLED
    assert StorageSettings(gpu="off", gpu_memory_mb=5).gpu_use == GpuUse(False, 5)


@pytest.mark.needs_cuda
def test_a_gpu_trains_and_finds_what_the_cpu_finds(
    rows: ClipRows, queries: NDArray[np.float32]
) -> None:
    if not num_gpus():
        pytest.skip("FAISS finds no GPU")
    made = build_codes(rows, "ivfpq", ENABLED)
    on_gpu = load_on_gpu(made, ENABLED)
    assert on_gpu is not None
    many = np.concatenate([queries] * 12)
    for allowed in (None, np.arange(len(rows)) % 50 > 0):
        answers = [
            IvfPqIndex(rows, made, nprobe=32, rescore_depth=500, gpu=each).search(
                many, 10, allowed=allowed
            )
            for each in (None, on_gpu)
        ]
        assert recall(answers[1][1], answers[0][1]) > 0.98
        assert allowed is None or np.isin(answers[1][1], rows.ids(np.flatnonzero(allowed))).all()


# Measuring


def test_the_cheapest_point_that_finds_enough_is_chosen(
    rows: ClipRows, queries: NDArray[np.float32]
) -> None:
    index = IvfPqIndex(rows, train_codes(rows), nprobe=1, rescore_depth=10)
    seen: list[Point] = []
    measured = measure(index, queries, target_recall=0.9, observe=seen.append)
    assert list(measured.points) == seen
    assert [point.nprobe for point in seen] == sorted({point.nprobe for point in seen})
    enough = [point for point in seen if point.sure_recall >= 0.9]
    assert measured.chosen == min(enough, key=lambda point: point.cpu_ms)
    assert all(point.cpu_ms > 0 for point in seen)
    tuned = IvfPqIndex(
        rows,
        index.codes,
        nprobe=measured.chosen.nprobe,
        rescore_depth=measured.chosen.rescore_depth,
    )
    assert found_share(tuned, queries) == pytest.approx(measured.chosen.recall, abs=0.01)


def test_what_finds_most_is_chosen_where_nothing_finds_enough(
    rows: ClipRows, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.storage.vectors.recall.DEPTHS", (12,))
    index = IvfPqIndex(rows, train_codes(rows, "ivfpq"), nprobe=1, rescore_depth=10)
    measured = measure(index, queries, target_recall=0.999)
    assert measured.chosen.recall == max(point.recall for point in measured.points) < 0.999


def test_clips_that_may_not_be_found_do_not_count(
    rows: ClipRows, queries: NDArray[np.float32]
) -> None:
    index = IvfPqIndex(rows, train_codes(rows), nprobe=1, rescore_depth=10)
    allowed = np.arange(len(rows)) % 10 > 0
    measured = measure(index, queries, target_recall=0.9, allowed=allowed)
    assert measured.chosen.recall >= 0.9


def test_recall_is_the_mean_share_of_the_true_ones() -> None:
    truth = np.array([[1, 2], [3, 4], [5, -1], [-1, -1]])
    found = np.array([[2, 1], [9, 4], [9, -1], [7, 8]])
    assert recall(found, truth) == pytest.approx((1 + 0.5 + 0) / 3)
    assert recall(found[3:], truth[3:]) == 1.0


def test_what_is_sure_is_below_what_was_found_and_nearer_the_more_were_asked() -> None:
    rng = np.random.default_rng(1)
    everybody = np.minimum(1.0, rng.integers(4, 14, 20_000) / 10)
    bounds = {}
    for count in (32, 128, 512):
        draws = [rng.choice(everybody, count) for _ in range(400)]
        sure = np.array([sure_recall(draw) for draw in draws])
        assert (sure < [draw.mean() for draw in draws]).all()
        assert (sure <= everybody.mean()).mean() > 0.93
        bounds[count] = sure.mean()
    assert bounds[32] < bounds[128] < bounds[512] < everybody.mean()
    assert sure_recall(np.ones(32)) < sure_recall(np.ones(512)) < 0.999
    assert sure_recall(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("num_rows", "num"), [(0, 512), (1_000_000, 512), (2_000_000, 268), (100_000_000, 32)]
)
def test_fewer_queries_are_asked_of_more_clips(num_rows: int, num: int) -> None:
    assert num_affordable(512, num_rows) == num


def test_stand_ins_are_unit_far_from_the_clips_and_nearest_to_different_ones(
    rows: ClipRows,
) -> None:
    stand_ins = stand_in_queries(rows, 64)
    np.testing.assert_allclose(np.linalg.norm(stand_ins, axis=1), 1, rtol=1e-5)
    assert stand_ins.dtype == np.float32
    scores, ids = FlatIndex(rows).search(stand_ins, 1)
    assert scores.max() < 0.8
    assert len(np.unique(ids >> 20)) > 20
    np.testing.assert_array_equal(stand_ins, stand_in_queries(rows, 64))


# Tuning what is on disk


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


def test_what_was_chosen_is_published_and_used_and_kept(
    tmp_path: Path, queries: NDArray[np.float32]
) -> None:
    before = bring_up(tmp_path, 200)
    points: list[Point] = []
    tuned = tune(
        tmp_path, DIM, range(200), target_recall=0.9, queries=queries, observe=points.append
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
    for last in (201, 215):  # linked, then folded
        grown = bring_up(tmp_path, last)
        assert grown.info.tuned == tuned
        assert (len(grown.delta) == 0) == (last == 215)
        library = open_library(tmp_path, dim=DIM, live_videos=range(last), load_clips=topic_clips)
        base = library._parts[0]
        assert isinstance(base, IvfPqIndex)
        probes = ADDED_PROBES if last == 215 else 1
        assert (base.nprobe, base.rescore_depth) == (probes * tuned.nprobe, tuned.rescore_depth)


def test_without_sentences_stand_ins_are_asked_and_dead_clips_do_not_count(tmp_path: Path) -> None:
    bring_up(tmp_path, 200)
    tuned = tune(tmp_path, DIM, range(10, 200), target_recall=0.8)
    assert tuned is not None
    assert (tuned.queries, tuned.num_queries) == ("stand-in", 512)


def test_a_search_is_tuned_again_after_training_and_never_where_it_was_not(
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


def test_an_index_that_is_made_anew_is_tuned_as_the_one_before(
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
    assert tuned_at(tmp_path) is None, "nothing was left to tune by"


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

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generations, "sync", full)
    with pytest.raises(IndexDirectoryError, match="No space left"):
        tune(tmp_path, DIM, range(200), queries=queries)
    assert tuned_at(tmp_path) is None


# The command


class Sentences:
    """Encodes a sentence as a vector near a clip of a drawn video."""

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
        "scanonce.ui.commands.tune.load_encoder", lambda *args, **options: Sentences()
    )
    return layout


def test_the_command_shows_what_was_measured_and_what_is_taken(index: IndexLayout) -> None:
    bring_up(index.vectors, 200)
    before = index.manifest.stat().st_mtime_ns
    console = Console(record=True, width=120)
    tuned = run_tune(index.root, 0.9, console)
    assert tuned == tuned_at(index.vectors)
    assert tuned is not None
    assert (tuned.queries, tuned.num_queries) == ("text", 512)
    text = console.export_text()
    assert "recall@10" in text
    assert text.count("taken") == 1
    assert f"{tuned.recall:.3f}" in text
    assert "512 sentences on 12,000 clips" in text
    assert index.manifest.stat().st_mtime_ns > before


def test_the_command_says_where_nothing_reaches_the_target(
    index: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.storage.vectors.recall.DEPTHS", (11,))
    bring_up(index.vectors, 200, SETTINGS.model_copy(update={"kind": "ivfpq"}))
    console = Console(record=True, width=120)
    run_tune(index.root, 0.999, console, sentences=["a cat", "two cats"])
    text = console.export_text()
    assert "No setting surely finds 0.999" in text
    assert 'storage.kind = "flat"' in text


def test_the_command_leaves_an_exact_index_alone(index: IndexLayout) -> None:
    bring_up(index.vectors, 3)
    console = Console(record=True, width=120)
    assert run_tune(index.root, 0.9, console) is None
    assert "exact, nothing needs tuning" in console.export_text()


def test_everyday_sentences_are_many_and_mixed() -> None:
    sentences = everyday_sentences()
    assert len(set(sentences)) == len(sentences) == 512
    assert len({each.split()[-1] for each in sentences[:32]}) > 2


def test_sentences_are_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sentences.txt"
    file.write_text("a dog\n\n  a cat \n")
    assert read_sentences(file) == ["a dog", "a cat"]
    file.write_text("\n")
    for wrong in (file, tmp_path / "missing.txt"):
        with pytest.raises(IndexDirectoryError, match="sentences"):
            read_sentences(wrong)


def test_videos_that_lists_know_nothing_of_are_their_yardstick(rows: ClipRows) -> None:
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


def test_topics_never_seen_in_training_are_found_again_after_training_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StorageSettings(ivf_threshold=11_000, fold_rows=3_000)
    monkeypatch.setattr("scanonce.storage.vectors.codes.default_nprobe", lambda nlist: 4)

    def grow(last: int) -> Generation:
        made = publish(tmp_path, range(last), strange_clips, dim=DIM, settings=settings)
        assert made is not None
        return made

    new_topics = np.concatenate([strange_clips(video)[:1] for video in range(200, 400)])
    grow(200)
    with monkeypatch.context() as patch:  # lists that are never judged
        patch.setattr(ListFit, "misfit", lambda self: None)
        drifted = publish(
            tmp_path / "old", range(200), strange_clips, dim=DIM, settings=settings
        ) and publish(tmp_path / "old", range(400), strange_clips, dim=DIM, settings=settings)
    trained = grow(400)
    assert drifted is not None
    assert drifted.info.fit is not None
    assert trained.info.fit is not None
    assert (drifted.info.fit.trained_clips, trained.info.fit.trained_clips) == (12_000, 24_000)
    shares = []
    for folder in (tmp_path / "old", tmp_path):
        generation = newest_generation(folder, dim=DIM)
        assert generation is not None
        base = IvfPqIndex(
            generation.base,
            read_codes(str(generation.path / "base.faiss")),
            nprobe=4,
            rescore_depth=200,
        )
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
    assert "came in folds" in (fit.misfit() or "")
