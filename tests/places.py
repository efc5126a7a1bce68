"""An index with a backup, for tests of both, and processes that are killed while they write."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from scanonce.indexer.verify import verify
from scanonce.search.engine import SearchEngine
from scanonce.storage.backup.backup import backup, restore
from scanonce.storage.backup.index_copy import CopyReport, OnProgress
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Video
from scanonce.storage.stores.features import FeatureStore
from tests import indexes
from tests.colours import write_film
from tests.indexes import build_index, publish_all, read_videos


class Place:
    """Films, their index, a spare film and a folder for the backup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.films, self.index_dir, self.target = root / "films", root / "index", root / "backup"

    @property
    def layout(self) -> IndexLayout:
        return IndexLayout.of(self.index_dir)

    def index(self) -> None:
        build_index(self.layout, self.films)

    def add(self, name: str) -> None:
        shutil.copy(self.root / "spare.mp4", self.films / name)
        self.index()

    def remove(self, name: str) -> None:
        (self.films / name).unlink()
        self.index()

    def features_of(self, name: str) -> Path:
        return FeatureStore(self.layout.features).path(video(self.index_dir, name).uid)

    def backup(self, on_progress: OnProgress = lambda _: None) -> CopyReport:
        return backup(self.layout, self.target, complete=publish_all, on_progress=on_progress)

    def restore(self, *, replace: bool = True) -> CopyReport:
        return restore(self.target, self.index_dir, replace=replace, complete=publish_all)


def make_template(work: Path) -> Path:
    """Index two films in a folder; return a copy of the folder, from which `fresh_place` restores it."""
    place = Place(work)
    write_film(place.films / "a.mp4", [("red", 8), ("blue", 6)])
    write_film(place.films / "b.mp4", [("green", 9)])
    write_film(work / "spare.mp4", [("white", 6), ("black", 3)])
    place.index()
    shutil.copytree(work, work.with_name("template"))
    return work.with_name("template")


def fresh_place(template: Path) -> Place:
    work = template.with_name("work")
    shutil.rmtree(work)
    shutil.copytree(template, work)
    return Place(work)


def names(root: Path) -> set[str]:
    return {path.name for video in read_videos(IndexLayout.of(root)) for path in video.paths}


def video(root: Path, name: str) -> Video:
    return next(each for each in read_videos(IndexLayout.of(root)) if each.path.name == name)


def open_engine(root: Path) -> SearchEngine:
    return indexes.open_engine(root)


def answers(root: Path) -> list[tuple[str, float, float, float]]:
    with open_engine(root) as engine:
        return [
            (each.path.name, each.span.start_seconds, each.span.end_seconds, each.score)
            for text in ("red", "green", "blue", "white")
            for each in engine.search(text).moments
        ]


def assert_whole(root: Path) -> None:
    """Check that nothing differs but the films, which may change, and that queries are answered."""
    found = verify(IndexLayout.of(root), holds_lock=True)
    kinds = [each for each in found.differences if not each.kind.startswith("file ")]
    assert kinds == []
    assert answers(root)


def in_child(action: Callable[[Callable[[], None]], None], kill_at: int) -> bool:
    """Run an action in a process that kills itself at one of its steps; return whether it did."""
    pid = os.fork()
    if pid == 0:
        step = 0

        def count(*_: object) -> None:
            nonlocal step
            step += 1
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            action(count)
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def with_steps(count: Callable[[], None], call: Callable[[], object]) -> None:
    """Count a step before each call that changes the disk."""
    patch = pytest.MonkeyPatch()
    for owner_of, name in [
        (os, "replace"),
        (os, "rename"),
        (os, "unlink"),
        (os, "link"),
        (os, "fsync"),
        (os, "rmdir"),
        (Path, "replace"),
        (Path, "rename"),
        (Path, "unlink"),
        (Catalog, "replace_by"),
        (Catalog, "copy_to"),
    ]:
        real = getattr(owner_of, name)

        def stepped(*args: object, _real: Callable[..., object] = real, **more: object) -> object:
            count()
            return _real(*args, **more)

        patch.setattr(owner_of, name, stepped)
    call()
