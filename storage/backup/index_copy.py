"""Copies the files of one index into the folder of another, while the first is searched and written.

    copy = IndexCopy(source, read_manifest(source), target, None, observe)
    vectors = copy.stage_vectors()     # then the catalogue, never the other way round
    copy.contents()

What is copied is there whole or not at all, and is not copied again. How an index becomes a backup, and a backup an
index, is in `storage.backup.backup`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.files import sync_directory
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.mapped import DamagedFile, map_tensors
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import Generation, newest_generation, newest_number

SNAPSHOT = ".tmp-catalog"
"""The copied catalogue, before it takes its place."""

_CONTENT_SLACK_NS = 2_000_000_000  # FAT keeps times to 2 s; contents do not change anyway
_VECTORS_SLACK_NS = (
    1_000  # NTFS keeps them to 100 ns; a generation's number and sizes may come twice
)


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far copying is."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a backup or a restored index came to."""

    layout: IndexLayout
    """The copy."""
    videos: int
    """Searchable ones."""
    files_copied: int
    bytes_copied: int
    files_kept: int
    """Files of contents that were there already."""
    damaged: tuple[Path, ...]
    """Files of the source that were not copied; where the copy had an earlier one, it keeps that."""
    lacking: tuple[Path, ...]
    """Videos in it without frame features, since the source has none that are whole."""


Observer = Callable[[CopyProgress], None]


class SourceSwitched(Exception):
    """The source was switched to another index or localiser meanwhile."""


class IndexCopy:
    """One copy on its way from ``source`` to ``target``."""

    def __init__(
        self,
        source: IndexLayout,
        manifest: Manifest,
        target: IndexLayout,
        reuse: IndexLayout | None,
        observe: Observer,
    ) -> None:
        """Begins; `contents` and `stage_vectors` copy.

        Args:
            source: the index.
            manifest: of the source.
            target: where it goes.
            reuse: an earlier copy on the target's disk, whose files are linked where they are the same.
            observe: told after each file.
        """
        self.source, self.target, self.reuse, self.observe = source, target, reuse, observe
        self.manifest = manifest
        self.snapshot = target.folder / SNAPSHOT
        self.videos = 0
        self.copied: set[Path] = set()
        self.kept: set[Path] = set()
        self.damaged: set[Path] = set()
        self.lacking: set[Path] = set()
        self._done, self._total = [0, 0], [0, 0]  # files, bytes

    def contents(self) -> None:
        """The head, a snapshot of the catalogue, and every file of the contents it names.

        Raises:
            SourceSwitched: the source is another index now.
        """
        self._copy_head()
        given_up: set[str] = set()
        while True:
            uids = self._take_snapshot()
            todo, missing = self._look(uids)
            missing |= self._copy_all(todo)
            if (IndexLayout.of(self.source.root), read_manifest(self.source)) != (
                self.source,
                self.manifest,
            ):
                raise SourceSwitched
            # one that is missing in two catalogues running was not deleted meanwhile: the source lacks it
            if not missing - given_up:
                break
            given_up = missing
        self.lacking = {path for uid in missing if (path := uids.get(uid)) is not None}
        for folder in {path.parent for path in self.copied}:
            sync_directory(folder)

    def _copy_head(self) -> None:
        """The few files of the head, without which no clip can be pooled, or no moment re-ranked."""
        if not self.manifest.keeps_head:
            return
        files = sorted(self.source.head.glob("[!.]*"))
        if not files:
            self.damaged.add(self.source.head)
        for path in files:
            try:
                status = path.stat()
                if not _is_same(status, self._goal(path), _VECTORS_SLACK_NS):
                    self._total = [self._total[0] + 1, self._total[1] + status.st_size]
                    self._copy_content(path, check=False)  # its digest is checked where it is used
            except (DamagedFile, FileNotFoundError):
                self.damaged.add(path)

    def _take_snapshot(self) -> dict[str, Path | None]:
        """Copies the catalogue; a path for each uid that is searchable, None for others."""
        with Catalog(self.source.catalog, read_only=True) as catalog:
            catalog.copy_to(self.snapshot)
        try:
            with Catalog(self.snapshot, read_only=True) as copy:
                problems = copy.integrity_problems()
            if problems:
                raise IndexDirectoryError(problems[0])
        except IndexDirectoryError as error:
            for path in self.target.folder.glob(f"{SNAPSHOT}*"):
                path.unlink()
            raise IndexDirectoryError(
                f"the catalogue {self.source.catalog} is damaged and is not copied ({error}). "
                "Restore an earlier backup of it, or index into a new directory."
            ) from error
        with Catalog.open(self.snapshot) as copy:  # brings one of an earlier version up to date
            searchable = {video.uid: video.path for video in copy.videos(states=SEARCHABLE)}
            self.videos = len(searchable)
            return {uid: searchable.get(uid) for uid in copy.uids()}

    def _look(self, uids: dict[str, Path | None]) -> tuple[list[tuple[str, Path]], set[str]]:
        """(uid, file) of what is to be copied, and uids of videos without features. Checks the room there is."""
        features, *others = self._stores()
        todo: list[tuple[str, Path]] = []
        missing, num_bytes, room = set(), 0, 0
        self.kept.clear()
        for uid, shown in uids.items():
            for store in (features, *others):
                path = store.path(uid)
                goal = self._goal(path)
                status = _status(path)
                if status is None:
                    if store is features and shown is not None and not goal.exists():
                        missing.add(uid)
                elif _is_same(status, goal, _CONTENT_SLACK_NS):
                    self.kept.add(goal)
                else:
                    todo.append((uid, path))
                    num_bytes += status.st_size
                    earlier = self._earlier(path)
                    linked = earlier and _is_same(status, earlier, _CONTENT_SLACK_NS)
                    room += 0 if linked else status.st_size
        self.kept -= self.copied
        self._check_room(room)
        self._total = [self._done[0] + len(todo), self._done[1] + num_bytes]
        return todo, missing

    def _copy_all(self, todo: list[tuple[str, Path]]) -> set[str]:
        """Copies files; uids of those that were gone."""
        vanished = set()
        for uid, path in todo:
            try:
                self._copy_content(path)
            except FileNotFoundError:
                vanished.add(uid)
            except DamagedFile:
                self.damaged.add(path)
                if path.is_relative_to(self.source.features) and not self._goal(path).exists():
                    vanished.add(uid)
        return vanished

    def _copy_content(self, path: Path, *, check: bool = True) -> None:
        goal = self._goal(path)
        goal.parent.mkdir(parents=True, exist_ok=True)
        earlier = self._earlier(path)
        if earlier is None or not _link_same(path, earlier, goal, _CONTENT_SLACK_NS):
            temporary = goal.with_name(f".tmp-{goal.stem}")
            try:
                _copy_file(path, temporary)
                if check:  # a damaged file must not take the place of a whole one
                    map_tensors(temporary)
                temporary.replace(goal)
            finally:
                temporary.unlink(missing_ok=True)
        self.copied.add(goal)
        self._note(goal)

    def stage_vectors(self) -> "list[StagedVectors]":
        """Copies of the newest generation, where nobody looks at it yet.

        Call it before `contents`, and place them after the catalogue: a generation may lag behind its catalogue, which
        is made up for, but must never be ahead of it. The ids it held would be given to other videos.
        """
        vectors = self.source.vectors
        return [self._stage(vectors, self._goal(vectors), self.manifest.dim)]

    def _stage(self, source: Path, target: Path, dim: int) -> "StagedVectors":
        while True:
            try:
                generation = newest_generation(source, dim=dim)
            except ManifestMismatch:  # of another length: it is made anew from what is stored
                generation = None
            if generation is None:
                return StagedVectors(target, None, None)
            try:
                return self._stage_generation(generation, target)
            except FileNotFoundError:  # swept by two publishes while it was copied
                if newest_number(source) == generation.number:
                    raise
            except DamagedFile:
                return StagedVectors(target, None, None)

    def _stage_generation(self, generation: Generation, target: Path) -> "StagedVectors":
        files = _files_in(generation.path)
        sizes = {path: path.stat() for path in files}
        before = target / f"{newest_number(target):0{len(generation.path.name)}d}"
        goals = {path: before / path.relative_to(generation.path) for path in files}
        if all(_is_same(sizes[path], goals[path], _VECTORS_SLACK_NS) for path in files):
            return StagedVectors(target, None, before)
        self._check_room(sum(status.st_size for status in sizes.values()))
        self._total[0] += len(files)
        self._total[1] += sum(status.st_size for status in sizes.values())
        target.mkdir(parents=True, exist_ok=True)
        for left in target.glob("staging-*"):  # by a copy that was killed
            shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=target))
        staging.chmod(0o755)  # readers may be other users
        for path in files:
            goal = staging / path.relative_to(generation.path)
            goal.parent.mkdir(exist_ok=True)
            if not _link_same(path, goals[path], goal, _VECTORS_SLACK_NS):
                _copy_file(path, goal)
            self._note(goal)
        if _files_in(generation.path) != files:
            raise FileNotFoundError(f"{generation.path} was swept")
        for folder in {staging, *(goal.parent for goal in staging.rglob("*"))}:
            sync_directory(folder)
        number = max(generation.number, newest_number(target) + 1)
        goal = target / f"{number:0{len(generation.path.name)}d}"
        return StagedVectors(target, staging, goal)

    def _stores(self) -> list[ContentFiles]:
        """Features first."""
        stores: list[ContentFiles] = [
            FeatureStore(self.source.features),
            ThumbnailStore(self.source.thumbnails),
        ]
        if self.manifest.anchors is not None:
            stores.append(AnchorStore(self.source.anchors / self.manifest.anchors))
        return stores

    def _goal(self, path: Path) -> Path:
        return self.target.folder / path.relative_to(self.source.folder)

    def _earlier(self, path: Path) -> Path | None:
        """Where the copy that is taken the place of would have a file of the source."""
        return self.reuse.folder / path.relative_to(self.source.folder) if self.reuse else None

    def _check_room(self, num_bytes: int) -> None:
        free = shutil.disk_usage(self.target.folder).free
        if num_bytes > free:
            raise IndexDirectoryError(
                f"{num_bytes / 1e9:.2f} GB are to be copied to {self.target.root}, where {free / 1e9:.2f} GB are free. "
                "Make room there or name a folder on another disk, then run the same command again."
            )

    def _note(self, goal: Path) -> None:
        self._done[0] += 1
        self._done[1] += goal.stat().st_size
        self.observe(CopyProgress(self._done[0], self._total[0], self._done[1], self._total[1]))

    def report(self) -> CopyReport:
        """What it came to."""
        return CopyReport(
            layout=self.target,
            videos=self.videos,
            files_copied=self._done[0],
            bytes_copied=self._done[1],
            files_kept=len(self.kept),
            damaged=tuple(sorted(self.damaged)),
            lacking=tuple(sorted(self.lacking)),
        )


@dataclass(frozen=True, slots=True)
class StagedVectors:
    """A copied generation on its way to its place."""

    folder: Path
    """Of the generations."""
    staged: Path | None
    """None where it is in its place already."""
    goal: Path | None
    """None where the source has no whole generation."""

    def remove_others(self) -> None:
        """Removes all other generations, so that none is ever beside a catalogue it may not belong to."""
        for other in self.folder.glob("*"):
            if other not in (self.staged, self.goal):
                shutil.rmtree(other, ignore_errors=True)

    def place(self) -> None:
        """From here on it is the newest generation."""
        if self.staged is not None and self.goal is not None:
            self.staged.rename(self.goal)
            sync_directory(self.folder)


# ---------------------------------------------------------------- files


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_same(status: os.stat_result, goal: Path, slack_ns: int) -> bool:
    """Whether a copy is there: as large, and as old, since copies keep the time of the last change."""
    there = _status(goal)
    return (
        there is not None
        and there.st_size == status.st_size
        and abs(there.st_mtime_ns - status.st_mtime_ns) < slack_ns
    )


def _link_same(path: Path, earlier: Path, goal: Path, slack_ns: int) -> bool:
    """Links an earlier copy of a file, on the disk of the backup; whether there is one and that can be done."""
    if not _is_same(path.stat(), earlier, slack_ns):
        return False
    try:
        os.link(earlier, goal)
    except OSError:  # a file system without hard links
        return False
    return True


def _files_in(folder: Path) -> list[Path]:
    """All files below a folder, sorted.

    Raises:
        FileNotFoundError: there are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"{folder} is empty or gone")
    return files


def _copy_file(path: Path, goal: Path) -> None:
    """A copy with the same time of change, on the disk when this returns.

    Raises:
        DamagedFile: the disk does not give what is in it.
    """
    status = path.stat()
    with path.open("rb") as source, goal.open("wb") as target:
        while block := _read(source):
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    os.utime(goal, ns=(status.st_atime_ns, status.st_mtime_ns))


def _read(file: IO[bytes]) -> bytes:
    try:
        return file.read(1 << 20)
    except OSError as error:
        raise DamagedFile(str(error)) from error
