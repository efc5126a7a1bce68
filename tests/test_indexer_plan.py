"""Scanning folders, and planning the steps that bring the catalogue in line with them."""

import itertools
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scanonce.indexer.plan
from scanonce.indexer.full_hashes import FullHashes
from scanonce.indexer.hashing import (
    BLOCK_BYTES,
    WHOLE_FILE_BYTES,
    fast_hash,
    full_hash,
)
from scanonce.indexer.plan import Plan, plan
from scanonce.indexer.scan import scan
from scanonce.indexer.selection import Selection
from scanonce.indexer.settings import IndexerSettings
from scanonce.media.answers import Opened
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import FileStamp
from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Video, VideoInfo

INFO = VideoInfo(duration_seconds=9.0, width=64, height=48, fps=25.0, codec="h264")
HOLE = WHOLE_FILE_BYTES // 2 + BLOCK_BYTES
"""Offset that no sample of a file of two WHOLE_FILE_BYTES covers (the first test of hashes checks it)."""

_mtimes = itertools.count(1_000_000_000_000_000_000, 1_000_000_000)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


@pytest.fixture
def catalog(tmp_path: Path, library: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        opened.add_library(library)
        yield opened


def write(path: Path, text: str | bytes) -> Path:
    """Write a file with this content, which is no text, and a modification time that no other file of the test has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else b"\0" + text.encode())
    mtime_ns = next(_mtimes)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def big(*, hole: bytes = b"", size: int = 2 * WHOLE_FILE_BYTES) -> bytes:
    """Return the bytes of a film too large to be hashed whole; the fast hash does not read ``hole``."""
    data = bytearray(size)
    data[HOLE : HOLE + len(hole)] = hole
    return bytes(data)


def names(library: Path) -> list[str]:
    return [file.path.relative_to(library).as_posix() for file in scan([library]).files]


def carry_out(
    catalog: Catalog,
    work: Plan,
    *,
    broken: frozenset[str] = frozenset(),
    transient: bool = False,
    partial: bool = False,
    hashed: bool = False,
) -> list[Video]:
    """Do the same as the pipeline, without decoding; return the videos removed. Files named in ``broken`` fail."""
    for new in work.to_index:
        if hashed:
            content = replace(new.content, full_hash=full_hash(new.files[0].path))
            new = replace(new, content=content)
        if new.files[0].path.name in broken:
            catalog.record_failed(new.files, "broken", content=new.content, transient=transient)
        else:
            catalog.record_indexed(
                new.content,
                new.files,
                state="partial" if partial else "indexed",
                reason="cut off" if partial else None,
                duration_seconds=8.0,
                num_frames=16,
                info=INFO,
                replaces=new.replaces,
            )
    for each in work.to_attach:
        catalog.attach_file(each.video_id, each.file, full_hash=each.full_hash)
    for file, reason in work.unreadable:
        catalog.record_failed([file], reason)
    return catalog.forget_files(work.to_forget)


def update(catalog: Catalog, library: Path, **options: Any) -> Plan:
    work = plan(catalog, scan([library]))
    carry_out(catalog, work, **options)
    return work


def summary(work: Plan) -> tuple[list[list[str]], list[str], list[str], int]:
    """Return the names of files to index (grouped by content), to attach and to forget, and the number unchanged."""
    return (
        [[file.path.name for file in new.files] for new in work.to_index],
        [each.file.path.name for each in work.to_attach],
        [path.name for path in work.to_forget],
        work.unchanged,
    )


def no_hashing(path: Path) -> NoReturn:
    raise AssertionError(f"{path} was hashed")


# ---------------------------------------------------------------- scan


def test_scan_lists_videos_sorted_by_path_in_any_case(library: Path) -> None:
    for name in ("b.MP4", "a/z.mkv", "a.mov", "notes.txt", "mp4", "c.mp4.part"):
        write(library / name, name)
    assert names(library) == ["a/z.mkv", "a.mov", "b.MP4"]


def test_scan_gives_size_and_time_of_change(library: Path) -> None:
    path = write(library / "a.mp4", b"12345")
    assert scan([library]).files == (FileStamp(path, 5, path.stat().st_mtime_ns),)


def test_names_that_start_with_a_dot_are_passed_over(library: Path) -> None:
    for name in (".git/a.mp4", "._b.mp4", ".c.mp4", "sub/.hidden/d.mp4", "e.mp4"):
        write(library / name, name)
    assert names(library) == ["e.mp4"]


def test_a_hidden_folder_can_be_a_root(tmp_path: Path) -> None:
    write(tmp_path / ".films" / "a.mp4", "a")
    assert names(tmp_path / ".films") == ["a.mp4"]


def test_a_root_may_be_a_file(library: Path) -> None:
    path = write(library / "a.mp4", "a")
    write(library / "b.mp4", "b")
    assert [file.path for file in scan([path]).files] == [path]


def test_a_root_file_that_is_not_a_video_is_reported(library: Path) -> None:
    found = scan([write(library / "notes.txt", "a")])
    assert found.files == ()
    assert "not a video by its extension" in found.problems[0].reason


def test_a_missing_root_is_an_error_or_offline(library: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: check the path"):
        scan([library / "nowhere"])
    found = scan([library / "nowhere"], libraries=[library / "nowhere"])
    assert found.offline == (library / "nowhere",)
    assert "not there now" in found.problems[0].reason


def test_roots_inside_each_other_list_a_file_once(library: Path) -> None:
    path = write(library / "sub" / "a.mp4", "a")
    found = scan([library / "sub", library, path])
    assert [file.path for file in found.files] == [path]


def test_a_relative_root_gives_absolute_paths(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(library / "a.mp4", "a")
    monkeypatch.chdir(library)
    assert [file.path for file in scan([Path(".")]).files] == [path]


def test_links_lead_to_files_and_folders_outside(library: Path, tmp_path: Path) -> None:
    write(tmp_path / "else" / "deep" / "a.mp4", "a")
    (library / "folder").symlink_to(tmp_path / "else")
    (library / "single.mp4").symlink_to(write(tmp_path / "b.mp4", "b"))
    assert names(library) == ["folder/deep/a.mp4", "single.mp4"]
    assert scan([library], Selection(IndexerSettings(follow_symlinks=False))).files == ()


def test_one_real_file_behind_two_links_is_one(library: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "a.mp4", "a")
    (library / "one.mp4").symlink_to(real)
    (library / "two.mp4").symlink_to(real)
    assert names(library) == ["one.mp4"]


def test_a_file_keeps_its_own_path_if_a_link_leads_to_it(library: Path) -> None:
    write(library / "z" / "own.mp4", "a")
    (library / "a link.mp4").symlink_to(library / "z" / "own.mp4")
    (library / "a folder").symlink_to(library / "z")
    assert names(library) == ["z/own.mp4"]
    assert scan([library]).problems == ()


def test_a_link_back_to_a_folder_above_is_reported_not_followed(library: Path) -> None:
    write(library / "sub" / "a.mp4", "a")
    (library / "sub" / "loop").symlink_to(library)
    found = scan([library])
    assert [file.path.name for file in found.files] == ["a.mp4"]
    (problem,) = found.problems
    assert problem.path == library / "sub" / "loop"
    assert "leads back" in problem.reason


def test_a_loop_through_a_folder_outside_ends(library: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "else" / "a.mp4", "a").parent
    (library / "out").symlink_to(outside)
    (outside / "back").symlink_to(library)
    found = scan([library])
    assert [file.path for file in found.files] == [library / "out" / "a.mp4"]
    assert [problem.path.name for problem in found.problems] == ["back"]


def test_a_ladder_of_links_is_climbed_once(library: Path) -> None:
    for level in range(30):  # 2 ** 30 ways lead to the file
        for side in ("left", "right"):
            link = library / str(level) / side
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(library / str(level + 1), target_is_directory=True)
    write(library / "30" / "a.mp4", "a")
    assert names(library / "0") == ["/".join(["left"] * 30) + "/a.mp4"]


def test_a_root_that_is_a_link_gives_way_to_the_real_one(library: Path, tmp_path: Path) -> None:
    path = write(library / "a.mp4", "a")
    link = tmp_path / "a link"
    link.symlink_to(library)
    assert [file.path for file in scan([link]).files] == [link / "a.mp4"]
    assert [file.path for file in scan([link, library]).files] == [path]


def test_broken_links_are_reported_and_count_as_offline(library: Path) -> None:
    (library / "a.mp4").symlink_to(library / "gone.mp4")
    (library / "self").symlink_to(library / "self")
    found = scan([library])
    assert [problem.path.name for problem in found.problems] == ["a.mp4", "self"]
    assert "broken link to" in found.problems[0].reason
    assert found.offline == (library / "a.mp4", library / "self")


def test_a_path_that_is_not_a_regular_file_is_reported(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(library / "pipe.mp4")
    monkeypatch.chdir(library)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mkv")
        found = scan([library])
    assert found.files == ()
    assert [(problem.path.name, problem.reason) for problem in found.problems] == [
        ("pipe.mp4", "not a regular file"),
        ("socket.mkv", "not a regular file"),
    ]


def test_a_folder_named_like_a_video_is_a_folder(library: Path) -> None:
    write(library / "a.mp4" / "b.mp4", "b")
    assert names(library) == ["a.mp4/b.mp4"]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_names_that_are_not_utf8_are_reported_in_printable_form(library: Path) -> None:
    raw = os.fsencode(library)
    Path(os.fsdecode(raw + b"/caf\xe9.mp4")).write_bytes(b"a")
    Path(os.fsdecode(raw + b"/caf\xe9.txt")).write_bytes(b"a")
    folder = Path(os.fsdecode(raw + b"/d\xe9j\xe0"))
    write(folder / "a.mp4", "a")
    found = scan([library])
    assert found.files == ()
    assert [problem.path.name for problem in found.problems] == [r"caf\xe9.mp4", r"d\xe9j\xe0"]
    for problem in found.problems:
        str(problem.path).encode()
    with pytest.raises(ConfigError, match=r"xe0: the name is not valid UTF-8; rename it"):
        scan([folder])


def refuse(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make folders unreadable, also for root."""
    real = os.scandir

    def scandir(path: str) -> "os._ScandirIterator[str]":
        if Path(path) in folders:
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_an_unreadable_folder_is_reported_and_the_rest_scanned(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(library / "locked" / "a.mp4", "a")
    write(library / "open" / "b.mp4", "b")
    refuse(monkeypatch, library / "locked")
    found = scan([library])
    assert [file.path.name for file in found.files] == ["b.mp4"]
    assert found.offline == (library / "locked",)
    assert found.problems[0].reason == "unreadable: Permission denied"


# ---------------------------------------------------------------- hashes


def test_the_fast_hash_sees_the_ends_the_size_and_the_samples_only(library: Path) -> None:
    plain = fast_hash(write(library / "plain", big()))
    assert fast_hash(write(library / "hole", big(hole=b"x"))) == plain
    assert fast_hash(write(library / "first", b"x" + big()[1:])) != plain
    assert fast_hash(write(library / "last", big()[:-1] + b"x")) != plain
    assert fast_hash(write(library / "longer", big(size=2 * WHOLE_FILE_BYTES + 1))) != plain


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, WHOLE_FILE_BYTES])
def test_the_fast_hash_of_a_small_file_covers_every_byte(library: Path, size: int) -> None:
    digests = {fast_hash(write(library / "plain", bytes(size)))}
    for offset in (0, size // 3, size // 2, size - 1):
        if size:
            data = bytearray(size)
            data[offset] = 1
            digests.add(fast_hash(write(library / "changed", bytes(data))))
    assert len(digests) == 1 + len({0, size // 3, size // 2, size - 1}) * bool(size)


def test_the_full_hash_covers_every_byte_and_is_never_a_fast_hash(library: Path) -> None:
    plain, hole = write(library / "plain", big()), write(library / "hole", big(hole=b"x"))
    assert full_hash(plain) != full_hash(hole)
    small = write(library / "small", "a")
    assert full_hash(small) != fast_hash(small)
    assert len(full_hash(small)) == len(fast_hash(small)) == 40


# ---------------------------------------------------------------- plan


def test_new_files_are_indexed_under_their_fast_hash(catalog: Catalog, library: Path) -> None:
    path = write(library / "a.mp4", "a")
    (new,) = plan(catalog, scan([library])).to_index
    assert new.content.uid == new.content.fast_hash == fast_hash(path)
    assert (new.content.full_hash, new.content.size_bytes) == (None, 2)


def test_equal_new_files_are_decoded_once(catalog: Catalog, library: Path) -> None:
    for name, text in (("b.mp4", "same"), ("a.mp4", "same"), ("c.mp4", "other")):
        write(library / name, text)
    assert summary(plan(catalog, scan([library])))[0] == [["a.mp4", "b.mp4"], ["c.mp4"]]


def test_unchanged_files_are_not_opened(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(library / "a.mp4", "a")
    update(catalog, library)
    monkeypatch.setattr(scanonce.indexer.plan, "fast_hash", no_hashing)
    assert summary(plan(catalog, scan([library]))) == ([], [], [], 1)


def test_five_thousand_unchanged_files_are_not_opened(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5000):
        (library / f"{number}.mp4").touch()
    found = scan([library])
    work = plan(catalog, found)
    (new,) = work.to_index
    assert len(new.files) == 5000  # all are empty, hence one content
    carry_out(catalog, work)
    monkeypatch.setattr(scanonce.indexer.plan, "fast_hash", no_hashing)
    assert summary(plan(catalog, found)) == ([], [], [], 5000)


def test_a_new_time_of_change_alone_decodes_nothing(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", "a")
    update(catalog, library)
    write(library / "a.mp4", "a")
    assert summary(update(catalog, library)) == ([], ["a.mp4"], [], 0)
    assert summary(update(catalog, library)) == ([], [], [], 1)


def test_a_moved_file_keeps_its_video(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", "a")
    update(catalog, library)
    (before,) = catalog.videos()
    (library / "sub").mkdir()
    (library / "a.mp4").rename(library / "sub" / "b.mp4")
    work = plan(catalog, scan([library]))
    assert summary(work) == ([], ["b.mp4"], ["a.mp4"], 0)
    assert carry_out(catalog, work) == []
    (after,) = catalog.videos()
    assert (after.video_id, after.paths) == (before.video_id, (library / "sub" / "b.mp4",))


@pytest.mark.parametrize("hashed", [False, True])
def test_moving_a_big_file_reads_samples_only(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch, hashed: bool
) -> None:
    path = write(library / "a.mp4", big())
    update(catalog, library, hashed=hashed)
    path.rename(library / "b.mp4")
    monkeypatch.setattr(scanonce.indexer.plan, "full_hash", no_hashing)
    assert summary(update(catalog, library)) == ([], ["b.mp4"], ["a.mp4"], 0)


def test_a_copy_of_a_big_file_is_recognised_by_its_full_hash(
    catalog: Catalog, library: Path
) -> None:
    path = write(library / "a.mp4", big())
    update(catalog, library)
    shutil.copyfile(path, library / "b.mp4")
    work = update(catalog, library)
    assert summary(work) == ([], ["b.mp4"], [], 1)
    assert work.to_attach[0].full_hash == full_hash(path)
    (known,) = catalog.videos_by_fast_hash(fast_hash(path))
    assert known.content.full_hash == full_hash(path)


def test_contents_that_differ_between_the_samples_are_two(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", big())
    update(catalog, library)
    other = write(library / "b.mp4", big(hole=b"x"))
    (new,) = update(catalog, library).to_index
    assert new.content.uid == new.content.full_hash == full_hash(other)
    assert new.content.fast_hash == fast_hash(library / "a.mp4")
    other.rename(library / "c.mp4")
    work = update(catalog, library)
    assert summary(work) == ([], ["c.mp4"], ["b.mp4"], 1)
    assert sorted(video.path.name for video in catalog.videos()) == ["a.mp4", "c.mp4"]


def test_new_files_that_differ_between_the_samples_are_two(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", big())
    write(library / "b.mp4", big(hole=b"x"))
    write(library / "c.mp4", big(hole=b"x"))
    work = plan(catalog, scan([library]))
    assert summary(work)[0] == [["a.mp4"], ["b.mp4", "c.mp4"]]
    first, second = (new.content.uid for new in work.to_index)
    assert (first, second) == (fast_hash(library / "a.mp4"), full_hash(library / "b.mp4"))


def test_a_moved_file_is_distinguished_from_a_twin_whose_full_hash_is_known(
    catalog: Catalog, library: Path
) -> None:
    path = write(library / "a.mp4", big())
    update(catalog, library)
    (first,) = catalog.videos()
    write(library / "twin.mp4", big(hole=b"x"))
    update(catalog, library)
    path.rename(library / "b.mp4")  # its own full hash is not on record
    (moved,) = plan(catalog, scan([library])).to_attach
    assert (moved.file.path.name, moved.video_id) == ("b.mp4", first.video_id)


def test_a_full_hash_on_record_distinguishes_contents_when_the_file_is_gone(
    catalog: Catalog, library: Path
) -> None:
    path = write(library / "a.mp4", big())
    update(catalog, library)
    write(library / "copy.mp4", big())
    update(catalog, library)  # puts the full hash on record
    path.unlink()
    (library / "copy.mp4").unlink()
    write(library / "b.mp4", big(hole=b"x"))
    assert summary(plan(catalog, scan([library])))[:2] == ([["b.mp4"]], [])


def test_a_big_file_with_a_new_time_is_compared_by_its_full_hash(
    catalog: Catalog, library: Path
) -> None:
    path = write(library / "a.mp4", big())
    update(catalog, library, hashed=True)
    write(path, big())
    assert summary(update(catalog, library)) == ([], ["a.mp4"], [], 0), "only its time is new"
    write(path, big(hole=b"x"))
    work = update(catalog, library, hashed=True)
    assert [new.content.uid for new in work.to_index] == [full_hash(path)]
    assert [video.uid for video in catalog.videos()] == [full_hash(path)]


@pytest.mark.parametrize("state", ["indexed", "partial", "failed"])
def test_a_big_file_with_a_new_time_and_no_full_hash_is_scanned_again(
    catalog: Catalog, library: Path, state: str
) -> None:
    path = write(library / "a.mp4", big())
    broken = frozenset({"a.mp4"} if state == "failed" else ())
    update(catalog, library, broken=broken, partial=state == "partial")
    (before,) = catalog.videos()
    write(path, big(hole=b"x"))
    work = update(catalog, library)
    assert summary(work)[0] == [["a.mp4"]]
    (after,) = catalog.videos()
    assert after.uid == (before.uid if state == "failed" else f"{before.uid}-2")


def test_a_copy_of_a_big_file_that_was_rewritten_since_is_not_taken_for_it(
    catalog: Catalog, library: Path
) -> None:
    path = write(library / "b.mp4", big())
    update(catalog, library)
    write(path, big(hole=b"x"))
    write(library / "a.mp4", big(hole=b"x"))
    assert summary(plan(catalog, scan([library])))[0] == [["a.mp4", "b.mp4"]]


def test_files_are_hashed_once_they_are_opened(library: Path) -> None:
    paths = [write(library / "big.mp4", big()), write(library / "small.mp4", "small")]
    paths += [write(library / "changing.mp4", big())]
    stamps = scan([library]).files
    names = [stamp.path.name for stamp in stamps]
    write(library / "changing.mp4", big())
    with FullHashes(stamps) as hashes:
        events = [Opened(job, INFO) for job in range(len(stamps))]
        assert list(hashes.follow(events)) == events
        found = {name: hashes.take(job) for job, name in enumerate(names)}
    assert found == {"big.mp4": full_hash(paths[0]), "small.mp4": None, "changing.mp4": None}


def test_hashing_ends_when_a_run_is_stopped(library: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedError):
        full_hash(write(library / "a.mp4", big()), stop)


def test_a_file_replaced_in_place_leaves_its_old_content(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", "old")
    update(catalog, library)
    (old,) = catalog.videos()
    write(library / "a.mp4", "new")
    work = plan(catalog, scan([library]))
    assert summary(work) == ([["a.mp4"]], [], [], 0)
    assert [video.uid for video in carry_out(catalog, work)] == [old.uid]
    (new,) = catalog.videos()
    assert new.uid == work.to_index[0].content.uid


def test_files_that_swap_names_are_not_decoded(catalog: Catalog, library: Path) -> None:
    a, b = write(library / "a.mp4", "a"), write(library / "b.mp4", "b")
    update(catalog, library)
    before = {video.uid for video in catalog.videos()}
    a.rename(library / "x")
    b.rename(a)
    (library / "x").rename(b)
    work = plan(catalog, scan([library]))
    assert summary(work) == ([], ["a.mp4", "b.mp4"], [], 0)
    assert carry_out(catalog, work) == []
    assert {video.uid for video in catalog.videos()} == before


def test_a_deleted_file_is_forgotten(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", "a")
    write(library / "b.mp4", "b")
    update(catalog, library)
    (library / "a.mp4").unlink()
    assert summary(update(catalog, library)) == ([], [], ["a.mp4"], 1)
    assert [video.path.name for video in catalog.videos()] == ["b.mp4"]


def test_files_outside_the_scanned_roots_are_left_alone(catalog: Catalog, library: Path) -> None:
    write(library / "one" / "a.mp4", "a")
    write(library / "two" / "b.mp4", "b")
    write(library / "two" / "c.mp4", "c")
    update(catalog, library)
    for name in ("one/a.mp4", "two/b.mp4"):
        (library / name).unlink()
    assert summary(plan(catalog, scan([library / "two"])))[2] == ["b.mp4"]


def test_a_failed_file_is_skipped_until_a_retry_or_a_change(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(library / "bad.mp4", "bad")
    carry_out(catalog, plan(catalog, scan([library])), broken=frozenset({"bad.mp4"}))
    work = plan(catalog, scan([library]))
    assert summary(work) == ([], [], [], 1)
    assert [(record.stamp.path.name, record.reason) for record in work.failed_before] == [
        ("bad.mp4", "broken")
    ]
    retry = plan(catalog, scan([library]), retry_failed=True)
    assert (summary(retry)[0], retry.failed_before) == ([["bad.mp4"]], ())
    write(library / "bad.mp4", "good")
    assert summary(plan(catalog, scan([library])))[0] == [["bad.mp4"]]


def test_a_transient_failure_is_tried_again_a_few_times(catalog: Catalog, library: Path) -> None:
    write(library / "bad.mp4", "bad")
    tried = 0
    for _ in range(5):
        work = plan(catalog, scan([library]), attempts=3)
        tried += len(work.to_index)
        carry_out(catalog, work, broken=frozenset({"bad.mp4"}), transient=True)
    assert tried == 3
    assert [record.reason for record in work.failed_before] == ["broken"]
    assert len(plan(catalog, scan([library]), attempts=3, retry_failed=True).to_index) == 1


def test_a_partial_video_is_scanned_again_under_another_uid_when_asked(
    catalog: Catalog, library: Path
) -> None:
    write(library / "a.mp4", "a")
    carry_out(catalog, plan(catalog, scan([library])), partial=True)
    (before,) = catalog.videos()
    assert plan(catalog, scan([library])).unchanged == 1
    for number in (2, 3):
        (new,) = plan(catalog, scan([library]), retry_failed=True).to_index
        assert new.content.uid == f"{before.uid}-{number}"
        carry_out(catalog, plan(catalog, scan([library]), retry_failed=True), partial=True)
    (after,) = catalog.videos()
    assert after.video_id > before.video_id
    assert after.paths == before.paths


def test_any_video_can_be_asked_for_again(catalog: Catalog, library: Path) -> None:
    write(library / "a.mp4", "a")
    write(library / "b.mp4", "b")
    update(catalog, library)
    video_id = next(video.video_id for video in catalog.videos() if video.path.name == "b.mp4")
    work = plan(catalog, scan([library]), again=[video_id])
    assert summary(work) == ([["b.mp4"]], [], [], 1)
    assert work.to_index[0].replaces == video_id


def test_a_path_that_is_gone_below_a_library_that_is_there_is_forgotten(
    catalog: Catalog, library: Path
) -> None:
    write(library / "a.mp4", "a")
    write(library / "b.mp4", "b")
    update(catalog, library)
    (library / "a.mp4").unlink()
    found = scan([library / "a.mp4"], libraries=[library])
    assert summary(plan(catalog, found))[2] == ["a.mp4"]
    (
        library / "b.mp4"
    ).unlink()  # now the library is empty, like the mount point of an unplugged disk
    work = plan(catalog, scan([library / "b.mp4"], libraries=[library]))
    assert (work.to_forget, work.offline) == ((), (library / "b.mp4",))


def test_a_copy_of_a_failed_video_fails_with_it(catalog: Catalog, library: Path) -> None:
    write(library / "bad.mp4", "bad")
    carry_out(catalog, plan(catalog, scan([library])), broken=frozenset({"bad.mp4"}))
    write(library / "copy.mp4", "bad")
    assert summary(update(catalog, library)) == ([], ["copy.mp4"], [], 1)
    retry = plan(catalog, scan([library]), retry_failed=True)
    assert summary(retry) == ([["bad.mp4", "copy.mp4"]], [], [], 0)


def test_retrying_a_big_failed_file_does_not_read_all_of_it(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(library / "bad.mp4", big())
    carry_out(catalog, plan(catalog, scan([library])), broken=frozenset({"bad.mp4"}))
    monkeypatch.setattr(scanonce.indexer.plan, "full_hash", no_hashing)
    assert summary(plan(catalog, scan([library]), retry_failed=True))[0] == [["bad.mp4"]]


# ---------------------------------------------------------------- offline, unreadable


def test_a_missing_root_keeps_its_files(catalog: Catalog, library: Path, tmp_path: Path) -> None:
    write(library / "a.mp4", "a")
    update(catalog, library)
    library.rename(tmp_path / "unplugged")
    work = plan(catalog, scan([library], libraries=[library]))
    assert (work.to_forget, work.offline) == ((), (library / "a.mp4",))


def test_an_empty_root_is_a_disk_not_mounted(catalog: Catalog, library: Path) -> None:
    write(library / "sub" / "a.mp4", "a")
    update(catalog, library)
    shutil.rmtree(library / "sub")
    work = plan(catalog, scan([library]))
    assert (work.to_forget, work.offline) == ((), (library / "sub" / "a.mp4",))
    (library / "sub").mkdir()  # an emptied folder; its root exists
    assert summary(plan(catalog, scan([library])))[2] == ["a.mp4"]


def test_an_unreadable_folder_keeps_its_files(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("locked/deep/a.mp4", "locked 2/b.mp4", "c.mp4"):
        write(library / name, name)
    update(catalog, library)
    shutil.rmtree(library / "locked 2")
    refuse(monkeypatch, library / "locked")
    work = plan(catalog, scan([library]))
    assert summary(work) == ([], [], ["b.mp4"], 1)
    assert work.offline == (library / "locked" / "deep" / "a.mp4",)
    assert work.problems[0].path == library / "locked"


def test_a_link_to_a_disk_that_is_away_keeps_its_files(
    catalog: Catalog, library: Path, tmp_path: Path
) -> None:
    write(tmp_path / "disk" / "a.mp4", "a")
    (library / "link").symlink_to(tmp_path / "disk")
    update(catalog, library)
    (tmp_path / "disk").rename(tmp_path / "away")
    work = plan(catalog, scan([library]))
    assert (work.to_forget, work.offline) == ((), (library / "link" / "a.mp4",))


def deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """Make a file unreadable, also for root."""

    def hash_or_deny(path: Path) -> str:
        if path == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return fast_hash(path)

    monkeypatch.setattr(scanonce.indexer.plan, "fast_hash", hash_or_deny)


def test_a_file_that_cannot_be_hashed_is_reported_and_tried_again(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(library / "a.mp4", "a")
    write(library / "b.mp4", "b")
    deny(monkeypatch, path)
    work = update(catalog, library)
    assert summary(work)[0] == [["b.mp4"]]
    ((file, reason),) = work.unreadable
    assert (file.path, reason) == (path, "cannot be read: Permission denied")
    assert [failure.path for failure in catalog.failures()] == [path]
    monkeypatch.undo()
    assert summary(update(catalog, library)) == ([["a.mp4"]], [], [], 1)
    assert catalog.failures() == []


def test_a_changed_file_that_cannot_be_read_keeps_its_video(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(library / "a.mp4", "old")
    update(catalog, library)
    write(path, "new")
    deny(monkeypatch, path)
    assert len(update(catalog, library).unreadable) == 1
    assert [video.path for video in catalog.videos()] == [path]
    monkeypatch.undo()
    assert summary(update(catalog, library))[0] == [["a.mp4"]]


def test_a_file_that_is_as_before_after_an_error_is_hashed_again(
    catalog: Catalog, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(library / "a.mp4", "old")
    before = path.stat()
    update(catalog, library)
    write(path, "new")
    deny(monkeypatch, path)
    update(catalog, library)
    monkeypatch.undo()
    write(path, "old")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert summary(update(catalog, library)) == ([], ["a.mp4"], [], 0)
    assert catalog.failures() == []


def test_a_file_that_vanishes_before_hashing_is_reported(catalog: Catalog, library: Path) -> None:
    path = write(library / "a.mp4", "a")
    found = scan([library])
    path.unlink()
    work = plan(catalog, found)
    assert work.to_index == ()
    assert "No such file" in work.unreadable[0][1]


def test_progress_names_each_file_before_it_is_hashed(catalog: Catalog, library: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(library / name, name)
    update(catalog, library)
    for name in ("c.mp4", "d.mp4"):
        write(library / name, name)
    calls: list[tuple[int, int, str]] = []
    plan(
        catalog,
        scan([library]),
        progress=lambda done, total, path: calls.append((done, total, path.name)),
    )
    assert calls == [(0, 2, "c.mp4"), (1, 2, "d.mp4")]


# ---------------------------------------------------------------- against a model

_name = st.sampled_from(["a.mp4", "b.mp4", "sub/c.mp4", "sub/d.mp4"])
_text = st.sampled_from(["red", "green", "blue"])
_change = st.one_of(
    st.tuples(st.just("write"), _name, _text),
    st.tuples(st.just("delete"), _name, _text),
    st.tuples(st.just("move"), _name, _name),
)


@settings(max_examples=25, deadline=None)
@given(rounds=st.lists(st.lists(_change, max_size=4), min_size=1, max_size=4))
def test_the_catalogue_follows_any_history_of_the_folder(
    rounds: list[list[tuple[str, str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After each update the catalogue has the contents on the disk; only new contents were decoded."""
    folder = tmp_path_factory.mktemp("history")
    library = folder / "films"
    write(library / "keep.txt", "so that the root is never empty")
    disk: dict[str, str] = {}
    with Catalog.open(folder / "catalog.sqlite") as catalog:
        catalog.add_library(library)
        for changes in rounds:
            before = set(disk.values())
            for kind, name, other in changes:
                _apply(disk, library, kind, name, other)
            work = update(catalog, library)
            assert len(work.to_index) == len(set(disk.values()) - before)
            stored = [{_relative(path, library) for path in v.paths} for v in catalog.videos()]
            expected = [
                {name for name, text in disk.items() if text == each} for each in {*disk.values()}
            ]
            assert sorted(map(sorted, stored)) == sorted(map(sorted, expected))
            assert summary(update(catalog, library)) == ([], [], [], len(disk))


def _apply(disk: dict[str, str], library: Path, kind: str, name: str, other: str) -> None:
    """Make a change on the disk and in the model of it."""
    if kind == "write":
        write(library / name, other)
        disk[name] = other
    elif kind == "delete" and name in disk:
        (library / name).unlink()
        del disk[name]
    elif kind == "move" and name in disk and name != other:
        (library / other).parent.mkdir(exist_ok=True)
        (library / name).replace(library / other)
        disk[other] = disk.pop(name)


def _relative(path: Path, library: Path) -> str:
    return path.relative_to(library).as_posix()
