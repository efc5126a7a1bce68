"""Long random histories of a library, compared with exact search: removed clips are never found, others always can be.

Thousands of operations (`make faults` tries four times as many): videos come, go and are replaced; a reader opens,
stays open and searches, with masks and without; a writer publishes, merges, trains again, changes the kind of codes, is
tuned, or is killed half-way.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors import ivfpq
from scanonce.storage.vectors import publish as generations
from scanonce.storage.vectors.codes import form_of, train_codes
from scanonce.storage.vectors.flat import FlatIndex
from scanonce.storage.vectors.generation import newest_generation
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import open_library, publish
from scanonce.storage.vectors.recall import recall
from scanonce.storage.vectors.tuning import tune
from tests.oracle import Clips, rows_of

DIM = 16
NUM_OPERATIONS = 2_500
CHECKPOINT = 250
SETTINGS = StorageSettings(ivf_threshold=1_000, fold_rows=80)

# (nprobe, rescore depth): greatest loss of recall compared with a newly built index. If few lists are searched, a bad
# fit shows at once; recall is about .95 then. The last settings are those of a real search.
SETTINGS_AND_TOLERANCE = {(16, 60): 0.03, (64, 500): 0.01}


pytestmark = pytest.mark.usefixtures("one_faiss_thread")


@cache
def topic_clips(video: int) -> NDArray[np.float32]:
    """Return 1 to 12 unit clips as stored; later videos show other topics."""
    rng = np.random.default_rng(video)
    topic = np.random.default_rng(10**6 + video // 60 * 7 + video % 20).standard_normal(DIM)
    clips = topic + 0.8 * rng.standard_normal((int(rng.integers(1, 13)), DIM))
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    return clips.astype(np.float16).astype(np.float32)


class History:
    """A library on disk with its expected videos, and one reader with the clips it should find."""

    def __init__(self, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.monkeypatch = monkeypatch
        self.settings = SETTINGS
        self.live: set[int] = set()
        self.next_video = 0
        self.done: Counter[str] = Counter()
        for _ in range(150):
            self.add()
        self.publish()
        self.reopen()

    # operations

    def add(self) -> None:
        self.live.add(self.next_video)
        self.next_video += 1

    def delete(self) -> None:
        if len(self.live) > 150:
            self.live.remove(int(self.rng.choice(sorted(self.live))))

    def replace(self) -> None:
        """A changed file is scanned again, with another id."""
        self.delete()
        self.add()

    def publish(self) -> None:
        before = newest_generation(self.folder, dim=DIM, with_codes=False)
        made = publish(self.folder, self.live, topic_clips, dim=DIM, settings=self.settings)
        assert made is not None
        assert made.info.fit is None or made.info.kind == "ivfpq"
        if before and made.info.fit and before.info.fit and before.info.base_segments:
            trained = made.info.fit.trained_clips != before.info.fit.trained_clips
            merged = made.info.fit.added_clips > before.info.fit.added_clips
            self.done["trained" if trained else "merged" if merged else "appended"] += 1

    def change_kind(self) -> None:
        kinds = ["auto", "ivfpq", "ivfpq-fastscan", "flat"]
        kind = self.rng.choice(kinds, p=[0.3, 0.4, 0.2, 0.1])
        self.settings = SETTINGS.model_copy(update={"kind": str(kind)})
        self.publish()

    def tune(self) -> None:
        tune(self.folder, DIM, self.live, target_recall=0.9, queries=self.queries(32))

    def die(self) -> None:
        """The writer is killed before it writes the last file."""

        def killed(*args: object) -> None:
            raise KeyboardInterrupt

        self.add()
        with self.monkeypatch.context() as patch:
            patch.setattr(generations, "_seal", killed)
            patch.setattr(shutil, "rmtree", lambda *args, **options: None)
            with pytest.raises(KeyboardInterrupt):
                publish(self.folder, self.live, topic_clips, dim=DIM, settings=self.settings)

    def reopen(self) -> None:
        previous = self.index if self.rng.random() < 0.5 and hasattr(self, "index") else None
        self.index: LibraryIndex = open_library(
            self.folder, dim=DIM, live_videos=self.live, load_clips=topic_clips, previous=previous
        )
        self.seen: Clips = {video: topic_clips(video) for video in sorted(self.live)}
        self.rows = rows_of(self.seen)

    def search(self) -> None:
        self.compare(self.queries(2), sorted(self.seen))

    def search_masked(self) -> None:
        share = float(self.rng.choice([0.01, 0.1, 0.5, 0.9]))
        self.compare(self.queries(2), [v for v in sorted(self.seen) if self.rng.random() < share])

    # checks

    def compare(self, queries: NDArray[np.float32], videos: list[int]) -> None:
        """Check that scores are exact, nothing else is found, and everything is found if search is exact."""
        allowed = None if len(videos) == len(self.seen) else self.index.mask(videos)
        scores, ids = self.index.search(queries, 10, allowed=allowed)
        passing = self.rows.mask(np.array(videos, np.int64))
        expected_scores, expected = FlatIndex(self.rows).search(queries, 10, allowed=passing)
        assert np.isin(ids[ids >= 0], self.rows.ids(np.flatnonzero(passing))).all()
        assert all(len(np.unique(row[row >= 0])) == (row >= 0).sum() for row in ids)
        is_exact = self.index.kind == "flat" or np.count_nonzero(passing) <= ivfpq.EXACT_ROWS
        if is_exact:
            np.testing.assert_array_equal(ids, expected)
            np.testing.assert_array_equal(scores, expected_scores)
        for query, row, found in zip(queries, ids, scores, strict=True):
            products = [self.seen[i >> 20][i & 0xFFFFF] @ query for i in row[row >= 0].tolist()]
            np.testing.assert_allclose(found[row >= 0], products, atol=1e-5)

    def checkpoint(self) -> None:
        """Check that all clips can be found, as many as by an index that is built of the same clips now."""
        self.publish()
        self.reopen()
        every = self.rows.ids(np.arange(len(self.rows)))
        _, ids = self.index.search(self.queries(1), len(every) + 1)
        assert set(ids[0].tolist()) == {-1, *every.tolist()}
        base = self.index._parts[0]
        if isinstance(base, IvfPqIndex):
            self.check_codes(base)
        self.done["checkpoints"] += 1

    def check_codes(self, base: IvfPqIndex) -> None:
        depth = len(base)
        reached = base.candidates(self.queries(1), nprobe=base.nlist, depth=depth)
        assert set(reached[0].tolist()) == set(base.rows.ids(np.arange(depth)).tolist())
        some = np.sort(self.rng.choice(depth, 200, replace=False))
        nearest = base.candidates(base.gather(some), nprobe=base.nlist, depth=100)
        own = [row in found for row, found in zip(base.rows.ids(some), nearest, strict=True)]
        assert np.mean(own) > 0.99  # each code belongs to its clip
        generation = newest_generation(self.folder, dim=DIM)
        assert generation is not None
        codes = train_codes(self.rows, form_of(generation.info.factory or ""))
        queries = self.queries(200)
        _, truth = FlatIndex(self.rows).search(queries, 10)
        for (nprobe, depth), tolerance in SETTINGS_AND_TOLERANCE.items():
            fresh = IvfPqIndex(self.rows, codes, nprobe=nprobe, rescore_depth=depth)
            base.nprobe, base.rescore_depth = nprobe, depth
            here, there = (
                recall(each.search(queries, 10)[1], truth) for each in (self.index, fresh)
            )
            assert here >= there - tolerance
            assert there > 0.9

    def queries(self, count: int) -> NDArray[np.float32]:
        """Return queries, each near a clip of the library."""
        some = [topic_clips(int(v))[:1] for v in self.rng.choice(sorted(self.live), count)]
        noise = 0.15 * self.rng.standard_normal((count, DIM))
        return np.concatenate(some) + noise.astype(np.float32)


OPERATIONS: dict[Callable[[History], None], float] = {
    History.add: 0.12,
    History.delete: 0.02,
    History.replace: 0.04,
    History.publish: 0.16,
    History.reopen: 0.12,
    History.search: 0.24,
    History.search_masked: 0.18,
    History.die: 0.013,
    History.change_kind: 0.003,
    History.tune: 0.003,
}


@pytest.mark.parametrize("seed", range(int(os.environ.get("NUM_HISTORIES", "1"))))
def test_thousands_of_random_operations_agree_with_exact_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Answers that are exact because few clips pass would hide faults of the codes.
    monkeypatch.setattr(ivfpq, "EXACT_ROWS", 60)
    monkeypatch.setattr(generations, "sync", lambda path: None)  # there are no power cuts here
    history = History(tmp_path, seed, monkeypatch)
    weights = np.array(list(OPERATIONS.values()))
    chosen = np.random.default_rng(seed).choice(
        len(OPERATIONS), NUM_OPERATIONS, p=weights / weights.sum()
    )
    for number, operation in enumerate(chosen.tolist(), start=1):
        act = list(OPERATIONS)[operation]
        act(history)
        history.done[act.__name__] += 1
        if number % CHECKPOINT == 0:
            history.checkpoint()
    assert history.done["checkpoints"] == NUM_OPERATIONS // CHECKPOINT
    assert all(history.done[act.__name__] for act in OPERATIONS)
    assert history.done["trained"] >= 3
    assert min(history.done["appended"], history.done["merged"]) >= 10
