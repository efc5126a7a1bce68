"""A whole copy of an index: made while the index is searched and written, put back in one step.

    backup(IndexLayout.of(index_dir), Path("/mnt/disk/backup"))
    restore(Path("/mnt/disk/backup"), index_dir, replace=True)

A backup is an index directory itself, and can be searched. It holds the contents of one moment's catalogue: the
catalogue is copied, then the files of its contents; if one of them is gone in the meantime, a newer catalogue is
copied, until nothing is missing. A uid names the result of one scan of a content and never changes, so a file that the
backup has is not copied again. Until the last step a backup is the earlier one, whatever ends the copying; the next run
finds the files copied by then. Files are copied, never linked to the index: a fault of its disk must not reach both.

    backup.json             this directory is a backup, nothing else may be in it
    backup.lock             locked while a process copies to it
    data-<n>/copying.json   an unfinished copy: the encoder and settings its contents belong to
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scanonce.storage.backup.index_copy import CopyReport, IndexCopy, OnProgress, SourceSwitched
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import write_whole
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout, data_folders, remove_contents, switch
from scanonce.storage.manifest import Manifest, read_manifest, write_manifest
from scanonce.storage.untrusted import MAX_JSON_BYTES, DamagedFile, read_bytes
from scanonce.storage.writer import owner, writing

_BACKUP, _LOCK, _COPYING = "backup.json", "backup.lock", "copying.json"
_MADE_BY = "scanonce backup"
_OF_AN_INDEX = {_BACKUP, _LOCK, "current", "writer.lock", "writer.json"}
_OF_AN_INDEX |= {"run.json", "run.pause", "run.log", "run.lock"}
_OF_AN_INDEX |= {"tokens.json", "tokens.lock", "serve.sock"}

Complete = Callable[[IndexLayout], object]
"""Derives what may be missing, such as vectors of videos that were not published yet; storage itself cannot."""


def backup(
    layout: IndexLayout,
    target: Path,
    *,
    complete: Complete = lambda _: None,
    on_progress: OnProgress = lambda _: None,
) -> CopyReport:
    """Make ``target`` a copy of an index in use, or update an earlier backup there.

    Cost: 0.1 ms for each file of the index, and reading and writing the new ones: each file is synced, 1 to 10 ms on
    most disks. The index is not locked: searches and one writer go on. If the index has another encoder or localiser
    since, it is copied to a staging folder in the backup, which then takes twice the space until that is done.

    Args:
        layout: the index.
        target: folder of the backup, best on another disk; it is created if necessary.
        complete: called with the copy before it is used.
        on_progress: called after each file.

    Raises:
        IndexDirectoryError: there is no index, it is damaged, ``target`` holds something else or another index's
            backup, there is no room, or it cannot be written. An earlier backup is unchanged.
    """
    _check_apart(layout.root, target)
    _check_names(layout)
    IndexLayout(target).refuse_links()
    with reported(target, "written"), _backup_folder(target):
        return _repeated(
            lambda source: _back_up(source, target, complete, on_progress), layout.root
        )


def restore(
    source_dir: Path,
    index_dir: Path,
    *,
    replace: bool = False,
    complete: Complete = lambda _: None,
    on_progress: OnProgress = lambda _: None,
) -> CopyReport:
    """Make ``index_dir`` a copy of a backup, or of any index.

    The copy is made in a staging folder, while an existing index is still searched, and replaces it by one write; so
    there must be room for both. If it was stopped, the same call goes on.

    Args:
        source_dir: the backup; it is only read.
        index_dir: the index directory, which nobody else may write in the meantime.
        replace: replace an existing index.
        complete: called with the copy before it is used.
        on_progress: called after each file.

    Raises:
        IndexDirectoryError: there is no backup, it is damaged, an index exists and ``replace`` is false, something
            else is there, or it cannot be written. An existing index is unchanged.
    """
    source_dir, index_dir = source_dir.absolute(), index_dir.absolute()
    _check_apart(source_dir, index_dir, "the backup")
    _check_names(IndexLayout.of(source_dir))
    IndexLayout(index_dir).refuse_links()
    _check_restorable(index_dir, replace)
    with reported(index_dir, "written"):
        _make_lockable(index_dir)
        layout = IndexLayout.of(index_dir)
        with writing(layout, "scanonce restore"):
            return _repeated(
                lambda source: _build(source, layout, None, complete, on_progress), source_dir
            )


def is_backup(folder: Path) -> bool:
    """Return whether `backup` writes to this folder."""
    try:
        return _MADE_BY in (folder / _BACKUP).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


# ---------------------------------------------------------------- the two ways to make a copy


def _repeated(attempt: Callable[[IndexLayout], CopyReport], root: Path) -> CopyReport:
    """Start over if the source was switched to another index while it was copied."""
    while True:
        source = IndexLayout.of(root)
        try:
            return attempt(source)
        except SourceSwitched:
            continue
        except IndexDirectoryError:
            if IndexLayout.of(root) == source:
                raise


def _back_up(
    source: IndexLayout, target: Path, complete: Complete, on_progress: OnProgress
) -> CopyReport:
    with writing(IndexLayout.of(target), "scanonce backup"):
        # Leftovers of a killed copy are cleared here at the latest; later that would remove new files.
        held = IndexLayout.of(target)
    if not held.manifest.exists():
        return _build(source, held, None, complete, on_progress)
    old, new = _check_same_index(source, held), read_manifest(source)
    is_same_data = _data_of(old) == _data_of(new)
    if not is_same_data or (old.localiser, old.anchors) != (new.localiser, new.anchors):
        return _build(source, held, held if is_same_data else None, complete, on_progress)
    copy = IndexCopy(source, new, held, None, on_progress)
    copy.run()
    with writing(held, "scanonce backup") as died:
        if (
            died is not None
        ):  # somebody wrote to the backup, and the new files went with the leftovers
            raise SourceSwitched
        copy.put_in_place()
        complete(held)
    return copy.report


def _build(
    source: IndexLayout,
    layout: IndexLayout,
    reuse: IndexLayout | None,
    complete: Complete,
    on_progress: OnProgress,
) -> CopyReport:
    """Make a whole copy in a staging folder, then switch to it."""
    manifest = read_manifest(source)
    staging = _claim_staging(layout, manifest)
    # first: `scanonce reindex` sees by it that this folder has other settings than its own
    write_manifest(staging, manifest)
    copy = IndexCopy(source, manifest, staging, reuse, on_progress)
    copy.run()
    copy.put_in_place()
    complete(staging)
    with writing(layout, "scanonce backup"):  # within `restore` it is held already
        switch(staging)
    (staging.folder / _COPYING).unlink()
    return copy.report


def _claim_staging(layout: IndexLayout, manifest: Manifest) -> IndexLayout:
    """Return a folder that is free, or holds an unfinished copy with the same settings."""
    wanted = json.dumps(_data_of(manifest), sort_keys=True)
    staging = layout.staging
    while staging.folder.exists():
        staging.refuse_links()
        try:
            begun = read_bytes(staging.folder / _COPYING, MAX_JSON_BYTES)
        except DamagedFile:
            begun = b""
        except FileNotFoundError:  # `scanonce reindex` is at work there, or was stopped
            if (other := owner(staging)) is not None:
                raise IndexDirectoryError(
                    f"{layout.root} is being scanned again (process {other.pid}: {other.doing}): stop that first."
                ) from None
            staging = staging.staging
            continue
        if begun != wanted.encode():
            remove_contents(staging)
        break
    write_whole(staging.folder / _COPYING, lambda file: file.write(wanted.encode()))
    return staging


# ---------------------------------------------------------------- who may be copied where


def _data_of(manifest: Manifest) -> dict[str, Any]:
    """Return the settings the features of an index depend on: copies of the same content differ if these differ."""
    # a name: the fingerprint distinguishes encoders, and their heads
    names = ("encoder", "localiser", "anchors", "reranker")
    data = {name: value for name, value in asdict(manifest).items() if name not in names}
    # as JSON returns it
    return data | {"clip_scales_seconds": list(manifest.clip_scales_seconds)}


def _check_names(source: IndexLayout) -> None:
    """Check all names of an index that will be names of files, before anything is copied by them.

    Raises:
        IndexDirectoryError: there is no index, it is damaged, or a name would lead out of a folder.
    """
    manifest = read_manifest(source)
    with Catalog(source.catalog, read_only=True) as catalog:  # of any version
        Index(source, manifest, catalog).refuse_forged_names()


def _check_apart(root: Path, target: Path, what: str = "the index") -> None:
    here, there = root.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise IndexDirectoryError(
            f"{target} and {what} {root} are one inside the other: name a folder outside, best on another disk."
        )


@contextmanager
def _backup_folder(target: Path) -> Iterator[None]:
    """Lock the folder of a backup and mark it as one.

    Raises:
        IndexDirectoryError: it holds something else, or another process copies to it now.
    """
    if target.exists() and not is_backup(target) and _names_in(target, "backup"):
        what = "an index that is no backup" if _holds_index(target) else "other files"
        raise IndexDirectoryError(f"{target} holds {what}: name a folder that is new or empty.")
    target.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"made_by": _MADE_BY, "since": datetime.now(UTC).isoformat()})
    if not is_backup(target):
        write_whole(target / _BACKUP, lambda file: file.write(content.encode()))
    try:
        with FileLock(target / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise IndexDirectoryError(
            f"another `scanonce backup` writes {target} now: wait until it has ended."
        ) from error


def _check_same_index(source: IndexLayout, held: IndexLayout) -> Manifest:
    """Return the manifest of a backup. Two indexes must not take turns in one folder: each would remove the other's.

    Raises:
        IndexDirectoryError: the backup is damaged, or of another index.
    """
    try:
        manifest = read_manifest(held)
        with Catalog.open(held.catalog) as catalog:
            theirs = catalog.runs.began_at()
    except IndexDirectoryError as error:
        raise IndexDirectoryError(
            f"the backup {held.root} is damaged ({error}). Name another folder, or remove that one first."
        ) from error
    with Catalog(source.catalog, read_only=True) as catalog:
        ours = catalog.runs.began_at()
    if ours != theirs:
        begun = f", begun {theirs:%Y-%m-%d}" if theirs else ""
        raise IndexDirectoryError(
            f"{held.root} holds the backup of another index{begun}: name a folder for each index."
        )
    return manifest


def _names_in(folder: Path, purpose: str) -> list[str]:
    """Return the names in a folder, sorted, without files that were never finished.

    Raises:
        IndexDirectoryError: it is a file.
    """
    if not folder.is_dir():
        raise IndexDirectoryError(f"{folder} is a file: name a folder for the {purpose}.")
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".tmp-"))


def _holds_index(root: Path) -> bool:
    """Return whether an index is in use there, whole or damaged."""
    plain = IndexLayout(root)
    return (root / "current").exists() or plain.manifest.exists() or plain.catalog.exists()


def _check_restorable(index_dir: Path, replace: bool) -> None:
    if not index_dir.exists():
        return
    names = _names_in(index_dir, "index")
    if _holds_index(index_dir):
        if not replace:
            raise IndexDirectoryError(
                f"there is an index at {index_dir}. To give it up for the backup: add --replace; "
                "or restore into another folder with --index."
            )
    elif others := [n for n in names if n not in _OF_AN_INDEX and not n.startswith("data-")]:
        raise IndexDirectoryError(
            f"{index_dir} holds other files ({others[0]}): name a folder that is new, empty or an index."
        )


def _make_lockable(index_dir: Path) -> None:
    """Repair a damaged index so far that it can be locked; its content stays.

    Locking reads the name of the folder in use, and clears the leftovers of a killed writer by the catalogue. Either
    may be damaged.
    """
    index_dir.mkdir(parents=True, exist_ok=True)
    try:
        layout = IndexLayout.of(index_dir)
    except IndexDirectoryError:
        names = [folder.name for folder in data_folders(index_dir)]
        name = names[-1] if names else "data-1"
        write_whole(index_dir / "current", lambda file: file.write(name.encode()))
        layout = IndexLayout.of(index_dir)
    if owner(layout) is None:
        (index_dir / "writer.json").unlink(missing_ok=True)
