"""Copies the files of one index into the folder of another, while the first is searched and written.

    copy = IndexCopy(source, read_manifest(source), target, None, on_progress)
    copy.run()                         # new contents are there, but nothing names them
    copy.put_in_place()                # the catalogue, by one transaction, then the vectors

Each file is copied whole or not at all, and is not copied again. How an index becomes a backup, and a backup an index,
is in `storage.backup.backup`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.files import sync_directory
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest, write_manifest
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.mapped import map_tensors
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.untrusted import DamagedFile, inside, open_regular
from scanonce.storage.vectors.generation import (
    Generation,
    newest_generation,
    newest_number,
    numbered,
)
from scanonce.storage.writer import remove_leftovers

# Times of change that differ by less are the same. FAT keeps them to 2 s, and a content never changes.
_CONTENT_SLACK_NS = 2_000_000_000
# NTFS keeps them to 100 ns. Two generations may have the same number and sizes.
_VECTORS_SLACK_NS = 1_000


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far copying is."""

    bytes_done: int
    bytes_total: int


OnProgress = Callable[[CopyProgress], None]


@dataclass(slots=True)
class CopyReport:
    """The result of a backup or of a restored index."""

    layout: IndexLayout
    """The copy."""
    videos: int = 0
    """Number of searchable videos."""
    files_copied: int = 0
    bytes_copied: int = 0
    files_kept: int = 0
    """Number of files, besides vectors, that were there already."""
    damaged: tuple[Path, ...] = ()
    """Files of the source that were not copied; the copy keeps its earlier file if it has one."""
    missing: tuple[Path, ...] = ()
    """Videos in it without frame features, because the source has no whole ones."""


class SourceSwitched(Exception):
    """The source was switched to another index or localiser in the meantime."""


class _StagedVectors(NamedTuple):
    """A copied generation on its way to its place."""

    staged: Path | None
    """None if it is in its place already."""
    goal: Path | None
    """None if the source has no whole generation."""


class IndexCopy:
    """One copy on its way from ``source`` to ``target``."""

    def __init__(
        self,
        source: IndexLayout,
        manifest: Manifest,
        target: IndexLayout,
        reuse: IndexLayout | None,
        on_progress: OnProgress,
    ) -> None:
        """Prepare a copy; nothing is read yet.

        Args:
            source: the index.
            manifest: of the source.
            target: layout of the copy.
            reuse: an earlier copy on the target's disk; files that are the same are linked.
            on_progress: called after each file.
        """
        self.source, self.manifest, self.target = source, manifest, target
        self._reuse, self._on_progress = reuse, on_progress
        self._snapshot = target.folder / ".tmp-catalog"
        self._vectors = _StagedVectors(None, None)
        self._copied: set[Path] = set()
        self._bytes_total = 0
        self.report = CopyReport(target)

    def run(self) -> None:
        """Copy all files; nothing names the copies yet.

        Vectors come first, the catalogue after them. A generation may be behind its catalogue, which `open_library`
        makes up for, but never ahead: the catalogue would give the ids in it to other videos.

        Raises:
            SourceSwitched: the source is another index now.
        """
        self._vectors = self._stage_vectors()
        missing: set[str] = set()
        while True:
            uids, given_up = self._take_snapshot(), missing
            missing = self._copy_files_of(uids)
            now = IndexLayout.of(self.source.root), read_manifest(self.source)
            if now != (self.source, self.manifest):
                raise SourceSwitched
            # a file that two successive catalogues name was not deleted in between: it is missing in the source
            if missing <= given_up:
                break
        paths = {path for uid in missing if (path := uids.get(uid)) is not None}
        self.report.missing = tuple(sorted(paths))
        for folder in {path.parent for path in self._copied}:
            sync_directory(folder)

    def put_in_place(self) -> None:
        """Replace the target's catalogue, whose contents are all there now; remove the files it no longer names."""
        staged, goal = self._vectors
        for other in self.target.vectors.glob(
            "*"
        ):  # none may be next to a catalogue it is ahead of
            if other not in (staged, goal):
                shutil.rmtree(other, ignore_errors=True)
        with Catalog.open(self.target.catalog) as catalog:
            catalog.replace_by(self._snapshot)
        write_manifest(self.target, self.manifest)
        if staged is not None and goal is not None:
            staged.rename(goal)
            sync_directory(self.target.vectors)
        remove_leftovers(self.target)

    # ------------------------------------------------ contents

    def _take_snapshot(self) -> dict[str, Path | None]:
        """Copy the catalogue; return a path for each uid that is searchable, None for others."""
        with Catalog(self.source.catalog, read_only=True) as catalog:
            catalog.copy_to(self._snapshot)
        try:
            with Catalog(self._snapshot, read_only=True) as copy:
                if problems := copy.integrity_problems():
                    raise IndexDirectoryError(problems[0])
        except IndexDirectoryError as error:
            for path in self.target.folder.glob(f"{self._snapshot.name}*"):
                path.unlink()
            raise IndexDirectoryError(
                f"the catalogue {self.source.catalog} is damaged and is not copied ({error}). "
                "Restore an earlier backup of it, or index into a new directory."
            ) from error
        with Catalog.open(self._snapshot) as copy:  # updates the tables of an earlier version
            searchable = {video.uid: video.path for video in copy.videos(states=SEARCHABLE)}
            self.report.videos = len(searchable)
            return {uid: searchable.get(uid) for uid in copy.uids()}

    def _copy_files_of(self, uids: Mapping[str, Path | None]) -> set[str]:
        """Copy missing files; return the uids of videos whose features are in neither, or whose files vanished."""
        todo, missing, kept, stores = [], set(), set(), self._stores()
        for path in [*self._small_files(), *(store.path(uid) for uid in uids for store in stores)]:
            if _is_same(path, self._goal(path), _CONTENT_SLACK_NS):
                kept.add(self._goal(path))
            elif path.exists():
                todo.append(path)
            elif self._is_needed(path) and uids[path.stem] is not None:
                missing.add(path.stem)
        self.report.files_kept = len(kept - self._copied)
        self._expect({path: self._earlier(path) for path in todo})
        for path in todo:
            try:
                # a damaged file must not replace a whole one; calibration, selects and head are checked when used
                self._put(
                    path, check=path.suffix != ".json" and not path.is_relative_to(self.source.head)
                )
            except FileNotFoundError:
                missing.add(path.stem)
            except DamagedFile:
                self._note_damage(path)
                if self._is_needed(path):
                    missing.add(path.stem)
        return missing

    def _is_needed(self, path: Path) -> bool:
        """Whether a file holds features that the copy does not have."""
        return path.is_relative_to(self.source.features) and not self._goal(path).exists()

    def _stores(self) -> list[ContentFiles]:
        stores = [FeatureStore(self.source.features), ThumbnailStore(self.source.thumbnails)]
        if self.manifest.anchors is None:
            return stores
        return [*stores, AnchorStore(self.source.anchors_of(self.manifest.anchors))]

    def _small_files(self) -> list[Path]:
        """Return calibration and selects, and the files without which no clip can be pooled, or no moment re-ranked."""
        kept = [path for path in (self.source.calibration, self.source.selects) if path.exists()]
        if not self.manifest.keeps_head:
            return kept
        head = self.source.head
        paths = [inside(head, path.name) for path in sorted(head.glob("[!.]*"))]
        if not paths:
            self._note_damage(head)
        return [*kept, *paths]

    # ------------------------------------------------ vectors

    def _stage_vectors(self) -> _StagedVectors:
        """Copy the newest generation to a staging folder, if it is not there yet."""
        while True:
            generation = None
            try:
                generation = newest_generation(self.source.vectors, dim=self.manifest.dim)
                if generation is None:
                    return _StagedVectors(None, None)
                return self._stage_generation(generation)
            except FileNotFoundError:
                if generation and generation.path.exists():
                    raise
                # Two publishes have swept it while it was copied: take the newest one.
            except (ManifestMismatch, DamagedFile):  # it is derived again from the features
                return _StagedVectors(None, None)

    def _stage_generation(self, generation: Generation) -> _StagedVectors:
        target = self.target.vectors
        before = inside(target, numbered(newest_number(target)))
        paths = [
            inside(generation.path, name) for name in (*generation.info.files, "generation.json")
        ]
        earlier_of = {path: inside(before, path.name) for path in paths}
        if all(_is_same(path, earlier_of[path], _VECTORS_SLACK_NS) for path in paths):
            return _StagedVectors(None, before)
        target.mkdir(parents=True, exist_ok=True)
        for left in target.glob("staging-*"):  # by a copy that was killed
            shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix="staging-", dir=target))
        staging.chmod(0o755)  # readers may be other users
        self._expect(earlier_of)
        for path in paths:
            goal = staging / path.name
            if not _link_same(path, earlier_of[path], goal, _VECTORS_SLACK_NS):
                _copy_file(path, goal)
            self._count(goal)
        sync_directory(staging)
        number = max(generation.number, newest_number(target) + 1)
        return _StagedVectors(staging, target / numbered(number))

    # ------------------------------------------------ files

    def _goal(self, path: Path) -> Path:
        return inside(self.target.folder, *path.relative_to(self.source.folder).parts)

    def _earlier(self, path: Path) -> Path | None:
        """Return the path of a source file in the earlier copy."""
        if self._reuse is None:
            return None
        return inside(self._reuse.folder, *path.relative_to(self.source.folder).parts)

    def _put(self, path: Path, *, check: bool) -> None:
        """Copy a file, or link the earlier copy of it.

        Raises:
            FileNotFoundError: it is gone.
            DamagedFile: the disk cannot read it, or ``check`` is set and it is not a whole file of tensors.
        """
        goal = self._goal(path)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if not _link_same(path, self._earlier(path), goal, _CONTENT_SLACK_NS):
            temporary = goal.with_name(f".tmp-{goal.stem}")
            temporary.unlink(missing_ok=True)
            try:
                _copy_file(path, temporary)
                if check:
                    map_tensors(temporary)
                temporary.replace(goal)
            finally:
                temporary.unlink(missing_ok=True)
        self._copied.add(goal)
        self._count(goal)

    def _expect(self, earlier: Mapping[Path, Path | None]) -> None:
        """Count files to be copied, given with their earlier copies, and check that there is room for them."""
        sizes = {path: path.stat().st_size for path in earlier if path.exists()}
        self._bytes_total = self.report.bytes_copied + sum(sizes.values())
        needed = sum(
            size
            for path, size in sizes.items()
            if not _is_same(path, earlier[path], _CONTENT_SLACK_NS)
        )
        free = shutil.disk_usage(self.target.folder).free
        if needed > free:
            raise IndexDirectoryError(
                f"{needed / 1e9:.2f} GB are to be copied to {self.target.root}, where {free / 1e9:.2f} GB are free. "
                "Make room there or name a folder on another disk, then run the same command again."
            )

    def _count(self, goal: Path) -> None:
        self.report.files_copied += 1
        self.report.bytes_copied += goal.stat().st_size
        self._on_progress(CopyProgress(self.report.bytes_copied, self._bytes_total))

    def _note_damage(self, path: Path) -> None:
        self.report.damaged = tuple(sorted({*self.report.damaged, path}))


def _is_same(path: Path, copy: Path | None, slack_ns: int) -> bool:
    """Whether both are there, as large and as old: copies keep the time of the last change."""
    try:
        one, other = path.stat(), (copy or path).stat()
    except FileNotFoundError:
        return False
    age_ns = abs(one.st_mtime_ns - other.st_mtime_ns)
    return copy is not None and one.st_size == other.st_size and age_ns < slack_ns


def _link_same(path: Path, earlier: Path | None, goal: Path, slack_ns: int) -> bool:
    """Link an earlier copy of a file, on the disk of the target; return whether there is one and that worked."""
    if earlier is None or not _is_same(path, earlier, slack_ns):
        return False
    try:
        os.link(earlier, goal)
    except OSError:  # a file system without hard links
        return False
    return True


def _copy_file(path: Path, goal: Path) -> None:
    """Copy a file with its time of change; it is on the disk when this returns.

    Raises:
        DamagedFile: the disk cannot read it, or it is a folder, a pipe or a link.
    """
    with open_regular(path) as source, goal.open("xb") as target:
        status = os.fstat(source.fileno())
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
