"""The story of a writer: five commands on a library of numbered videos, and the state that each must leave behind."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scanonce.indexer.pipeline import IndexReport, Progress, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.library import Library
from scanonce.search.engine import SearchEngine
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from tests import indexes
from tests.numbered import ENCODER, LOCALISER, arrange, direction, has_thumbnails, number_in, uid_of

Report = Callable[..., None]
"""Reports a fact of a kind, such as ``report("indexed", 17)``."""

SETTINGS = IndexerSettings()
# Far below the allowed values, so that a handful of videos is merged into the base and becomes IVF-PQ.
STORAGE = StorageSettings.model_construct(ivf_threshold=20, rescore_depth=500, fold_rows=8)


@dataclass(frozen=True)
class Step:
    """One command of the writer."""

    films: dict[str, int]
    """The numbers of the videos in the library when it begins, by path."""
    again: tuple[int, ...] = ()
    """Videos to scan again."""
    forget: str = ""
    """Folder of the library to forget; empty: index the library."""


STORY = (
    Step({"a.mp4": 1, "b.mp4": 2, "sub/c.mp4": 3}),
    # 1 is replaced by 4 under the same path, 2 is moved, 3 is deleted, 5 and 6 are new.
    Step({"a.mp4": 4, "moved/b.mp4": 2, "d.mp4": 5, "e.mp4": 6}),
    Step({"a.mp4": 4, "moved/b.mp4": 2, "d.mp4": 5, "e.mp4": 6, "f.mp4": 7}, again=(6,)),
    Step({"a.mp4": 4, "d.mp4": 5, "e.mp4": 6, "f.mp4": 7}, forget="moved"),
    Step({"a.mp4": 4, "d.mp4": 5, "f.mp4": 7, "g.mp4": 8, "h.mp4": 9}),
)


@dataclass(frozen=True)
class Case:
    """The folders of one run of the story."""

    folder: Path

    @property
    def films(self) -> Path:
        """The library."""
        return self.folder / "films"

    @property
    def index(self) -> Path:
        """The index directory, in a folder of its own: a power cut may lose its name in that folder."""
        return self.folder / "place" / "index"

    @property
    def disk(self) -> Path:
        """The folder in which the child notes what is safely on the disk."""
        return self.folder / "disk"


def run_story(case: Case, report: Report, *, first: int = 0, last: int = len(STORY) - 1) -> None:
    """Run commands of the story one after another; report the begin and the end of each."""
    case.index.parent.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(STORY[first : last + 1], start=first):
        arrange(case.films, step.films)
        report("begin", number)
        if step.forget:
            forget(case, case.films / step.forget)
        else:
            done = index(case, report, again=_ids(case, step.again))
            for problem in done.problems:
                report("problem", f"{problem.path.name}: {problem.reason}")
        report("done", number)


def index(case: Case, report: Report, *, again: Sequence[int] = ()) -> IndexReport:
    """Run `index_library`; report each video right after the commit that makes it searchable."""
    done = 0

    def on_progress(progress: Progress) -> None:
        nonlocal done
        if progress.videos_done > done:  # then ``current`` is the file that was just stored
            done = progress.videos_done
            assert progress.current is not None
            report("indexed", number_in(progress.current))

    return index_library(
        [case.films],
        layout=IndexLayout.of(case.index),
        encoder=ENCODER,
        settings=SETTINGS,
        storage=STORAGE,
        localiser=LOCALISER,
        on_progress=on_progress,
        again=again,
    )


def forget(case: Case, path: Path) -> None:
    """Run `scanonce forget` if there is anything to forget."""
    with Catalog.open(IndexLayout.of(case.index).catalog) as catalog:
        known = catalog.files_under(path)
    if known:
        Library(case.index, storage=STORAGE).forget([path])


def _ids(case: Case, numbers: Sequence[int]) -> list[int]:
    if not numbers:
        return []
    uids = tuple(uid_of(number) for number in numbers)
    with Catalog.open(IndexLayout.of(case.index).catalog) as catalog:
        return [video.video_id for video in catalog.videos() if video.uid.startswith(uids)]


@dataclass(frozen=True)
class Expected:
    """The promises of a writer when it ended."""

    found: tuple[int, ...]
    """Videos that searches must find."""
    gone: tuple[int, ...]
    """Videos that searches must not return."""
    next_step: int
    """The first step that was not finished."""

    @classmethod
    def after(cls, reports: Sequence[Sequence[Any]], before: "Expected") -> "Expected":
        """Return the promises of a run that began where ``before`` ended."""
        found, gone, step = set(before.found), set(before.gone), before.next_step
        for kind, value in reports:
            if kind == "begin":
                # videos that were just deleted may be found or not until the command ends
                found &= set(STORY[value].films.values())
            elif kind == "indexed":
                found.add(value)
            elif kind == "done":
                present = set(STORY[value].films.values())
                ever = {k for each in STORY[: value + 1] for k in each.films.values()}
                found, gone, step = present, ever - present, value + 1
        return cls(tuple(sorted(found)), tuple(sorted(gone)), step)


NOTHING = Expected((), (), 0)

# ---------------------------------------------------------------- checks


def open_engine(index_dir: Path) -> SearchEngine:
    """Open the index for searches that return whole clips."""
    return indexes.open_engine(index_dir, ENCODER, localiser="clips", nms_overlap=1.0)


def numbers_found(
    engine: SearchEngine, texts: Sequence[str], known: Collection[int]
) -> list[list[int]]:
    """Return for each text which of the known videos a search returns, best first."""
    by_uid = {uid_of(number): number for number in known}
    found = []
    for result in engine.search_many(texts, top=100):
        videos = [engine.videos[moment.video_id] for moment in result.moments]
        uids = [video.uid.partition("-")[0] for video in videos]
        found.append(list(dict.fromkeys(by_uid[uid] for uid in uids if uid in by_uid)))
    return found


def find_problems(case: Case, expected: Expected) -> list[str]:
    """Compare the answers of searches and the stored files with the promises."""
    every = sorted({number for step in STORY for number in step.films.values()})
    try:
        with open_engine(case.index) as engine:
            found = numbers_found(engine, [f"video {number}" for number in every], every)
        problems = []
        for number, returned in zip(every, found, strict=True):
            if number in expected.found and returned[:1] != [number]:
                problems.append(f"video {number} was promised; found is {returned}")
            if stale := set(returned) & set(expected.gone):
                problems.append(f"deleted videos {stale} are returned for {number}")
        return problems + _unreadable(case.index, expected.found)
    except IndexDirectoryError as error:
        if not expected.found:  # killed before there was an index
            return []
        return [f"cannot be opened or searched: {error}"]


def _unreadable(index_dir: Path, numbers: Sequence[int]) -> list[str]:
    """Find the stored files of promised videos that are missing or wrong."""
    problems = []
    with Index.open(index_dir, read_only=True) as index:
        uids = {video.uid.partition("-")[0]: video.uid for video in index.catalog.videos()}
        for number in numbers:
            uid = uids[uid_of(number)]
            try:
                right = direction(number).astype(np.float16)
                if not (index.features.read(uid).frames == right).all():
                    problems.append(f"features of another video are stored for {number}")
                assert index.anchors is not None
                index.anchors.read(uid)
                if has_thumbnails(number) and not index.thumbnails.read(uid, 0.0):
                    problems.append(f"thumbnails of video {number} are lost")
            except IndexDirectoryError as error:
                problems.append(str(error))
    return problems


def find_leftovers(index_dir: Path) -> list[str]:
    """Find everything in an index that should not be there after a run that ended well."""
    layout = IndexLayout.of(index_dir)
    paths = sorted(index_dir.rglob("*"))
    problems = [
        f"left behind: {path.relative_to(index_dir)}"
        for path in paths
        if path.name.startswith((".tmp", "staging-", "writer.json"))
    ]
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        videos = catalog.videos()
        uids = catalog.uids()
    if len(uids) != len(videos):
        problems.append(f"{len(uids) - len(videos)} videos in the catalogue have no file")
    stored = {path.stem for path in paths if path.suffix == ".safetensors"}
    problems += [f"stored for no video: {uid}" for uid in sorted(stored - uids)]
    generations = [path.name for path in layout.vectors.glob("??????????")]
    if len(generations) > 2:
        problems.append(f"superfluous generations: {generations}")
    with closing(sqlite3.connect(layout.catalog)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    return problems if verdict == "ok" else [*problems, f"SQLite: {verdict}"]
