"""Kinds of codes, many queries at once, a GPU."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.models.runtime import use_one_thread
from scanonce.storage.settings import GpuUse, Kind, StorageSettings
from scanonce.storage.vectors import codes
from scanonce.storage.vectors.codes import (
    coded_form,
    factory,
    form_of,
    read_codes,
    train_codes,
    write_codes,
)
from scanonce.storage.vectors.flat import FlatIndex, search_exactly
from scanonce.storage.vectors.gpu import (
    NO_GPU,
    build_codes,
    codes_bytes,
    load_on_gpu,
    num_gpus,
    why_not,
)
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import open_library
from scanonce.storage.vectors.recall import (
    recall,
)
from scanonce.storage.vectors.rows import ClipRows
from tests.topics import (
    DIM,
    SETTINGS,
    bring_up,
    found_share,
    near_topics,
    rows_of_topics,
    topic_clips,
)

pytestmark = pytest.mark.usefixtures("one_faiss_thread")


@pytest.fixture(scope="module")
def rows() -> ClipRows:
    """12,000 clips: more than are searched exactly."""
    return rows_of_topics(200)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return near_topics()


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize(
    ("num_rows", "dim", "form", "name"),
    [
        (50_000, 512, "ivfpq-fastscan", "IVF1024,PQ256x4fs"),
        (1_000_000, 512, "ivfpq-fastscan", "IVF4096,PQ256x4fs"),
        (1_000, 63, "ivfpq-fastscan", "IVF128,PQ21x4fs"),
        (1_000, 7, "ivfpq-fastscan", "IVF128,PQ1x4fs"),
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
    assert form == "ivfpq" or factory(many) == name
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
    kind: Kind, num_rows: int, gpu: bool, form: codes.CodedForm
) -> None:
    assert coded_form(kind, num_rows, gpu=gpu) == form


def test_a_configured_kind_takes_effect_with_the_next_publish(tmp_path: Path) -> None:
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
read_codes(sys.argv[2])  # so that the memory of FAISS itself does not count
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
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    grown, clips = map(int, printed.split())
    assert clips == 61 * len(rows)
    assert (tmp_path / "large").stat().st_size > 8_000_000
    assert grown < 2_000_000


# ---------------------------------------------------------------- many queries at once


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


def test_many_queries_use_all_cores_whatever_the_setting_of_torch(
    rows: ClipRows, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_one_thread()  # FAISS sees this setting, too
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


# ---------------------------------------------------------------- a GPU


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
def test_a_gpu_takes_codes_that_it_can_search_and_hold(
    use: GpuUse, facts: dict[str, int], reason: str | None
) -> None:
    given = why_not(
        use, **({"gpus": 1, "nbits": 8, "need_bytes": GB, "free_bytes": 8 * GB} | facts)
    )
    assert (given is None) == (reason is None)
    assert reason is None or reason in str(given)


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
