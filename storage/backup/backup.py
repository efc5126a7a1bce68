"""A whole copy of an index: made while it is searched and written, put back in one step.

    backup(IndexLayout.of(index_dir), Path("/mnt/disk/backup"))
    restore(Path("/mnt/disk/backup"), index_dir, replace=True)

A backup is an index directory itself, and can be searched. It holds what one moment's catalogue names: the catalogue is
copied, then the files of its contents; where one of them is gone meanwhile, a newer catalogue is copied, until
nothing is missing. A uid names what one scan made of a content and never changes, so what the backup has already is not
copied again. Until the last step a backup is the earlier one, whatever ends the copying; what was copied by then is
found by the next run. Plain copies, never links to the index: a fault of its disk must not reach both.

    backup.json             this directory is a backup, nothing else may be in it
    backup.lock             locked while somebody copies to it
    data-<n>/copying.json   a copy that has not come to its end: which encoder and settings its contents are of
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scanonce.storage.backup.index_copy import CopyReport, IndexCopy, Observer, SourceSwitched
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import sync_directory, write_whole
from scanonce.storage.layout import IndexLayout, remove_contents, switch
from scanonce.storage.manifest import Manifest, read_manifest, write_manifest
from scanonce.storage.writer import clear_leavings, content_stores, owner, writing

_BACKUP, _LOCK, _COPYING = "backup.json", "backup.lock", "copying.json"
_OF_AN_INDEX = {_BACKUP, _LOCK, "current", "writer.lock", "writer.json"}
_OF_AN_INDEX |= {"run.json", "run.pause", "run.log", "run.lock"}

Complete = Callable[[IndexLayout], object]
"""Derives what may be missing, such as vectors of videos that were not published yet; storage itself cannot."""


def backup(
    layout: IndexLayout,
    target: Path,
    *,
    complete: Complete = lambda _: None,
    observe: Observer = lambda _: None,
) -> CopyReport:
    """Makes ``target`` a copy of a live index, or brings an earlier backup there up to it.

    Costs a look at every file of the index (0.1 ms each), and reading and writing what is new: each file is synced, 1
    to 10 ms on most disks. The index is not locked: searches and one writer go on. An index that got another encoder
    or localiser since is copied beside the earlier backup, which then takes twice the space until it is done.

    Args:
        layout: the index.
        target: folder of the backup, on another disk if it shall survive this one's; made where it does not exist.
        complete: called with the copy before it is used.
        observe: told after each file.

    Raises:
        IndexDirectoryError: there is no index, it is damaged, ``target`` holds something else or another index's
            backup, there is no room, or it cannot be written. An earlier backup is as it was.
    """
    _check_apart(layout.root, target)
    with reported(target, "written"), _backup_folder(target):
        return _repeated(lambda source: _back_up(source, target, complete, observe), layout.root)


def restore(
    source_dir: Path,
    index_dir: Path,
    *,
    replace: bool = False,
    complete: Complete = lambda _: None,
    observe: Observer = lambda _: None,
) -> CopyReport:
    """Makes ``index_dir`` a copy of a backup, or of any index.

    It grows beside what is there, which is searched meanwhile, and takes its place by one write; so it needs room for
    both. Stopped, the same call goes on.

    Args:
        source_dir: the backup; it is only read.
        index_dir: the index directory, which nobody else may write meanwhile.
        replace: an index that is there is given up.
        complete: called with the copy before it is used.
        observe: told after each file.

    Raises:
        IndexDirectoryError: there is no backup, it is damaged, an index is there and ``replace`` is false, something
            else is there, or it cannot be written. What was there is as it was.
    """
    source_dir, index_dir = source_dir.absolute(), index_dir.absolute()
    _check_apart(source_dir, index_dir, "the backup")
    read_manifest(IndexLayout.of(source_dir))
    _check_restorable(index_dir, replace)
    with reported(index_dir, "written"):
        _make_lockable(index_dir)
        layout = IndexLayout.of(index_dir)
        with writing(layout, "scanonce restore"):
            return _repeated(
                lambda source: _build_beside(source, layout, complete, observe, None), source_dir
            )


def is_backup(folder: Path) -> bool:
    """Whether a folder is one that `backup` writes."""
    return (folder / _BACKUP).exists()


# ---------------------------------------------------------------- the two ways to make a copy


def _repeated(attempt: Callable[[IndexLayout], CopyReport], root: Path) -> CopyReport:
    """Starts over where the source was switched to another index while it was copied."""
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
    source: IndexLayout, target: Path, complete: Complete, observe: Observer
) -> CopyReport:
    with writing(IndexLayout.of(target), "scanonce backup"):
        # What a copy that was killed left is cleared here at the latest; later it would take what is copied now.
        held = IndexLayout.of(target)
    if not held.manifest.exists():
        return _build_beside(source, held, complete, observe, None)
    old, new = _manifest_of_backup(held), read_manifest(source)
    _check_same_index(source, held)
    if (old.localiser, old.anchors) == (new.localiser, new.anchors) and _same_data(old, new):
        return _update(source, new, held, complete, observe)
    return _build_beside(source, held, complete, observe, held if _same_data(old, new) else None)


def _update(
    source: IndexLayout,
    manifest: Manifest,
    held: IndexLayout,
    complete: Complete,
    observe: Observer,
) -> CopyReport:
    """Adds what is new, has the catalogue name it by one transaction, then removes what it names no more."""
    copy = IndexCopy(source, manifest, held, None, observe)
    vectors = copy.stage_vectors()
    copy.contents()
    with writing(held, "scanonce backup") as died:
        if died is not None:  # somebody wrote to the backup, and what is new went with what he left
            raise SourceSwitched
        for staged in vectors:
            staged.remove_others()
        with Catalog.open(held.catalog) as catalog:
            catalog.replace_by(copy.snapshot)
        write_manifest(held, copy.manifest)
        for staged in vectors:
            staged.place()
        clear_leavings(held)
        complete(held)
    return copy.report()


def _build_beside(
    source: IndexLayout,
    layout: IndexLayout,
    complete: Complete,
    observe: Observer,
    reuse: IndexLayout | None,
) -> CopyReport:
    """A whole copy beside what is there, which it then takes the place of."""
    manifest = read_manifest(source)
    beside = _claim_beside(layout, manifest)
    # first: `scanonce reindex` sees by it that what lies there is of other settings than its own
    write_manifest(beside, manifest)
    copy = IndexCopy(source, manifest, beside, reuse, observe)
    vectors = copy.stage_vectors()
    copy.contents()
    copy.snapshot.replace(beside.catalog)
    sync_directory(beside.folder)
    for staged in vectors:
        staged.remove_others()
        staged.place()
    _remove_strays(beside)  # of an earlier attempt with an earlier catalogue
    complete(beside)
    with writing(layout, "scanonce backup"):  # within `restore` it is held already
        switch(beside)
    (beside.folder / _COPYING).unlink()
    return copy.report()


def _claim_beside(layout: IndexLayout, manifest: Manifest) -> IndexLayout:
    """A folder that is free, or holds such a copy begun earlier."""
    wanted = json.dumps(_data_of(manifest), sort_keys=True)
    beside = layout.beside
    while beside.folder.exists():
        try:
            begun = (beside.folder / _COPYING).read_text("utf-8")
        except FileNotFoundError:  # `scanonce reindex` is at work there, or was stopped
            if (other := owner(beside)) is not None:
                raise IndexDirectoryError(
                    f"{layout.root} is being scanned anew (process {other.pid}: {other.doing}): stop that first."
                ) from None
            beside = beside.beside
            continue
        if begun != wanted:
            remove_contents(beside)
        break
    write_whole(beside.folder / _COPYING, lambda file: file.write(wanted.encode()))
    return beside


def _remove_strays(layout: IndexLayout) -> None:
    with Catalog.open(layout.catalog) as catalog:
        known = catalog.uids()
    for path in (path for store in content_stores(layout) for path in store.strays(known)):
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- who may be copied where


def _data_of(manifest: Manifest) -> dict[str, Any]:
    """What the features of an index depend on: copies of the same content differ where it differs."""
    # by name; the fingerprint tells encoders apart, and their heads
    names = ("encoder", "localiser", "anchors", "reranker")
    data = {name: value for name, value in asdict(manifest).items() if name not in names}
    # as JSON gives it back
    return data | {"clip_scales_seconds": list(manifest.clip_scales_seconds)}


def _same_data(one: Manifest, other: Manifest) -> bool:
    return _data_of(one) == _data_of(other)


def _check_apart(root: Path, target: Path, what: str = "the index") -> None:
    here, there = root.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise IndexDirectoryError(
            f"{target} and {what} {root} lie one inside the other: name a folder outside, best on another disk."
        )


@contextmanager
def _backup_folder(target: Path) -> Iterator[None]:
    """Holds the folder of a backup, which is marked as one.

    Raises:
        IndexDirectoryError: it holds something else, or somebody else copies to it now.
    """
    if target.exists() and not target.is_dir():
        raise IndexDirectoryError(f"{target} is a file: name a folder for the backup.")
    if target.exists() and not is_backup(target) and _holds_something(target):
        what = "an index that is no backup" if _holds_index(target) else "other files"
        raise IndexDirectoryError(f"{target} holds {what}: name a folder that is new or empty.")
    target.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"made_by": "scanonce backup", "since": datetime.now(UTC).isoformat()})
    if not is_backup(target):
        write_whole(target / _BACKUP, lambda file: file.write(content.encode()))
    try:
        with FileLock(target / _LOCK, timeout=0):
            yield
    except Timeout as error:
        raise IndexDirectoryError(
            f"another `scanonce backup` writes {target} now: wait until it has ended."
        ) from error


def _manifest_of_backup(held: IndexLayout) -> Manifest:
    try:
        return read_manifest(held)
    except IndexDirectoryError as error:
        raise IndexDirectoryError(
            f"the backup {held.root} is damaged ({error}). Name another folder, or remove that one first."
        ) from error


def _check_same_index(source: IndexLayout, held: IndexLayout) -> None:
    """Two indexes must not take turns in one folder: each would remove the other's backup."""
    try:
        with Catalog.open(held.catalog) as catalog:
            theirs = catalog.runs.began_at()
    except IndexDirectoryError as error:
        raise IndexDirectoryError(
            f"the backup {held.root} is damaged ({error}). Name another folder, or remove that one first."
        ) from error
    with Catalog(source.catalog, read_only=True) as catalog:
        ours = catalog.runs.began_at()
    if ours != theirs:
        raise IndexDirectoryError(
            f"{held.root} holds the backup of another index, begun {theirs:%Y-%m-%d}: name a folder for each index."
            if theirs
            else f"{held.root} holds the backup of another index: name a folder for each index."
        )


def _holds_something(folder: Path) -> bool:
    """Whether there is more in a folder than a file that was never finished."""
    return any(not path.name.startswith(".tmp-") for path in folder.iterdir())


def _holds_index(root: Path) -> bool:
    """Whether an index is in use there, whole or damaged."""
    plain = IndexLayout(root)
    return (root / "current").exists() or plain.manifest.exists() or plain.catalog.exists()


def _check_restorable(index_dir: Path, replace: bool) -> None:
    if not index_dir.exists():
        return
    if not index_dir.is_dir():
        raise IndexDirectoryError(f"{index_dir} is a file: name a folder for the index.")
    if _holds_index(index_dir):
        if not replace:
            raise IndexDirectoryError(
                f"there is an index at {index_dir}. To give it up for the backup: add --replace; "
                "or restore into another folder with --index."
            )
        return
    names = {path.name for path in index_dir.iterdir()}
    ours = (".tmp-", "data-")
    others = sorted(name for name in names - _OF_AN_INDEX if not name.startswith(ours))
    if others:
        raise IndexDirectoryError(
            f"{index_dir} holds other files ({others[0]}): name a folder that is new, empty or an index."
        )


def _make_lockable(index_dir: Path) -> None:
    """Has a damaged index be one that can be locked; what is there stays.

    To lock means to read the name of the folder in use, and to clear, by the catalogue, what a writer that died left:
    both may be what is damaged.
    """
    index_dir.mkdir(parents=True, exist_ok=True)
    try:
        layout = IndexLayout.of(index_dir)
    except IndexDirectoryError:
        numbers = [
            int(path.name[5:]) for path in index_dir.glob("data-*") if path.name[5:].isdecimal()
        ]
        name = f"data-{max(numbers, default=1)}"
        write_whole(index_dir / "current", lambda file: file.write(name.encode()))
        layout = IndexLayout.of(index_dir)
    if owner(layout) is None:
        (index_dir / "writer.json").unlink(missing_ok=True)
