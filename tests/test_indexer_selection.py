"""What of a library is left out: by pattern, by `.nomedia`, and indexes inside a library."""

import os
import unicodedata
from pathlib import Path

import pytest

from scanonce.indexer.scan import scan
from scanonce.indexer.selection import Selection
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.watch import Settling
from scanonce.storage.backup.backup import backup, is_backup
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from tests.colours import write_film
from tests.indexes import build_index, replace_index

TRASH = (
    "@eaDir/film.mp4/SYNOPHOTO_FILM_M.mp4",
    "#recycle/a.mp4",
    "sub/#Snapshot/GMT-2024.01.01/a.mp4",
    "$RECYCLE.BIN/S-1-5-21/$RX1.mp4",
    "$Recycle.Bin/S-1-5-21/$RX1.mp4",
    "System Volume Information/a.mp4",
    "lost+found/a.mp4",
    ".Trash-1000/files/a.mp4",
    ".Trashes/501/a.mp4",
    "@Recycle/a.mp4",
    "FOUND.000/a.mp4",
    "web/node_modules/pkg/a.ts",
)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(library: Path, selection: Selection | None = None) -> list[str]:
    found = scan([library], selection, libraries=[library])
    return [file.path.relative_to(library).as_posix() for file in found.files]


def excluding(*patterns: str) -> Selection:
    return Selection(IndexerSettings(exclude=patterns))


@pytest.mark.parametrize("name", TRASH)
def test_scan_watch_and_the_selection_agree_on_what_is_left_out(tmp_path: Path, name: str) -> None:
    path = touch(tmp_path / name)
    assert names(tmp_path) == []
    assert names(tmp_path, excluding("other")) == ([] if name.startswith(".") else [name])
    assert Selection().why_left_out(path, [tmp_path]) is not None
    settling = Settling([tmp_path], settle_seconds=1)
    settling.add([path], now=0)
    assert settling.ready(now=9) == []


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("raw", ["2023/b.mp4", "a.mp4"]),
        ("raw/", ["2023/b.mp4", "a.mp4"]),
        ("RA?", ["2023/b.mp4", "a.mp4"]),
        ("*.mov", ["2023/b.mp4", "2024/raw/c.mp4", "a.mp4"]),
        ("2024/raw", ["2023/b.mp4", "a.mp4"]),
        ("2024/*.mov", ["2023/b.mp4", "2024/raw/c.mp4", "a.mp4"]),
        ("*/2023/*", ["2024/raw/c.mp4", "2024/raw/d.mov", "a.mp4"]),
        ("2023/raw", ["2023/b.mp4", "2024/raw/c.mp4", "2024/raw/d.mov", "a.mp4"]),
    ],
)
def test_a_pattern_is_of_a_name_or_of_the_end_of_a_path(
    tmp_path: Path, pattern: str, left: list[str]
) -> None:
    for name in ("a.mp4", "2023/b.mp4", "2024/raw/c.mp4", "2024/raw/d.mov"):
        touch(tmp_path / name)
    assert names(tmp_path, excluding(pattern)) == left


def test_a_pattern_may_be_a_whole_path(tmp_path: Path) -> None:
    touch(tmp_path / "one" / "a.mp4")
    touch(tmp_path / "two" / "a.mp4")
    assert names(tmp_path, excluding(str(tmp_path / "one"))) == ["two/a.mp4"]


def test_accents_may_be_composed_or_not(tmp_path: Path) -> None:
    touch(tmp_path / unicodedata.normalize("NFD", "Müll") / "a.mp4")
    assert names(tmp_path, excluding(unicodedata.normalize("NFC", "müll"))) == []


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 character"):
        IndexerSettings(exclude=("",))


def test_a_root_may_have_any_name(tmp_path: Path) -> None:
    touch(tmp_path / "#recycle" / "sub" / "a.mp4")
    assert names(tmp_path / "#recycle") == ["sub/a.mp4"]
    found = scan([tmp_path], libraries=[tmp_path, tmp_path / "#recycle"])
    assert len(found.files) == 1, "its own root, although it is left out of the other"


def test_a_path_that_its_library_leaves_out_is_not_listed_by_its_name(tmp_path: Path) -> None:
    path = touch(tmp_path / "#recycle" / "a.mp4")
    for root in (path, path.parent):
        found = scan([root], libraries=[tmp_path])
        assert found.files == ()
        (problem,) = found.problems
        assert (problem.path, problem.reason) == (path.parent, "left out by indexer.exclude")


@pytest.mark.parametrize("where", ["", "sub", "sub/deep"])
def test_a_folder_with_a_nomedia_file_is_left_out_with_all_in_it(
    tmp_path: Path, where: str
) -> None:
    path = touch(tmp_path / "sub" / "deep" / "a.mp4")
    touch(tmp_path / where / ".nomedia")
    assert names(tmp_path) == []
    assert scan([path], libraries=[tmp_path]).files == ()
    settling = Settling([tmp_path], settle_seconds=1)
    settling.add([path], now=0)
    assert settling.ready(now=9) == []


def test_watching_sees_a_nomedia_file_come_and_go(tmp_path: Path) -> None:
    path = touch(tmp_path / "sub" / "a.mp4")
    sign = touch(path.with_name(".nomedia"))
    settling = Settling([tmp_path], settle_seconds=1)
    settling.add([sign], now=0)
    assert settling.ready(now=9) == [path.parent]
    sign.unlink()
    settling.add([sign], now=10)
    assert path in settling.ready(now=19)


# ---------------------------------------------------------------- indexes inside a library


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_film(tmp_path / "films" / "a.mp4", [("red", 4)])
    return tmp_path / "films"


def put_in_cache(root: Path) -> Path:
    """Put a file where the pages keep proxies and clips."""
    return touch(root / "cache" / "clip-1.mp4")


@pytest.mark.parametrize("replaced", [False, True])
def test_an_index_inside_the_library_is_not_entered(library: Path, replaced: bool) -> None:
    layout = IndexLayout(library / "index")
    clip = put_in_cache(layout.root)
    assert build_index(layout, library).counts.seen == 1
    if replaced:
        replace_index(layout)
    assert build_index(IndexLayout.of(layout.root), library).counts.seen == 1
    assert names(library) == ["a.mp4"], "other indexes do not enter it either"
    settling = Settling([library], settle_seconds=1)
    settling.add([clip], now=0)
    assert settling.ready(now=9) == []


def test_links_into_an_index_are_not_followed(library: Path) -> None:
    layout = IndexLayout(library.parent / "index")
    clip = put_in_cache(layout.root)
    build_index(layout, library)
    (library / "clips").symlink_to(clip.parent)
    (library / "clip.mp4").symlink_to(clip)
    (library / "all").symlink_to(layout.root)
    assert build_index(layout, library).counts.seen == 1


@pytest.mark.parametrize("where", [".", "cache", "cache/clip-1.mp4"])
def test_an_index_is_no_library(library: Path, where: str) -> None:
    layout = IndexLayout(library.parent / "index")
    put_in_cache(layout.root)
    build_index(layout, library)
    report = build_index(layout, layout.root / where)
    assert "is an index of Scanonce" in report.problems[0].reason
    assert roots(layout) == [library]


def test_a_backup_inside_the_library_is_not_entered(library: Path, tmp_path: Path) -> None:
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, library)
    backup(layout, library / "backup")
    put_in_cache(library / "backup")
    assert names(library) == ["a.mp4"]
    (library / "backup" / "current").unlink()
    assert names(library) == ["a.mp4"], "nor a damaged one"


def test_files_called_like_those_of_an_index_are_no_index(library: Path) -> None:
    for name in ("manifest.json", "current", "backup.json"):
        (library / name).write_text("of something else")
    assert names(library) == ["a.mp4"]
    assert not is_backup(library)


# ---------------------------------------------------------------- what becomes a folder of the index


def roots(layout: IndexLayout) -> list[Path]:
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        return [each.root for each in catalog.libraries()]


def test_a_path_that_cannot_be_indexed_becomes_no_folder_of_the_index(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = touch(library.parent / "notes.txt")
    locked = touch(library.parent / "locked" / "a.mp4").parent
    (broken := library.parent / "broken").symlink_to(library.parent / "gone")
    real = os.scandir

    def scandir(path: str) -> "os._ScandirIterator[str]":
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    layout = IndexLayout(library.parent / "index")
    report = build_index(layout, notes, locked, broken, library)
    assert roots(layout) == [library]
    reasons = {problem.path: problem.reason for problem in report.problems}
    assert reasons.keys() == {notes, locked, broken}
    for reason in reasons.values():
        assert "It is not added to the folders of the index: " in reason
    assert reasons[notes].endswith("name a video or a folder of videos")
    assert reasons[locked].startswith("unreadable: Permission denied")
    assert build_index(IndexLayout(library.parent / "other"), notes).nothing_usable


def test_a_folder_of_the_index_that_cannot_be_read_stays_one(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = IndexLayout(library.parent / "index")
    build_index(layout, library)

    whole = os.scandir

    def scandir(path: str) -> "os._ScandirIterator[str]":
        if library in (Path(path), *Path(path).parents):
            raise PermissionError(13, "Permission denied", path)
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = build_index(layout, library)
    assert [problem.reason for problem in report.problems] == ["unreadable: Permission denied"]
    assert roots(layout) == [library]
