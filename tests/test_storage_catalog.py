"""The catalogue: libraries, recording, forgetting, runs, and readers that follow its changes."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.catalog.entries import ChangeMark, Content, FileStamp, RunCounts, content_of
from scanonce.storage.records import Video
from tests.catalogs import INFO, LIBRARY, content, record, sql, stamp

# ---------------------------------------------------------------- libraries


def test_adding_a_library_twice_keeps_the_first(catalog: Catalog) -> None:
    before = datetime.now(UTC)
    first = catalog.add_library(LIBRARY / "new")
    assert catalog.add_library(LIBRARY / "new") == first
    assert before - timedelta(seconds=1) < first.added_at <= datetime.now(UTC)
    assert [library.root for library in catalog.libraries()] == [LIBRARY, LIBRARY / "new"]


def test_forgetting_a_library_takes_its_videos_and_no_others(catalog: Catalog) -> None:
    catalog.add_library(Path("/films-too"))
    record(catalog, "a", "a.mp4", "sub/a.mp4")
    record(catalog, "b", "/films-too/b.mp4")
    assert [video.uid for video in catalog.forget_libraries([LIBRARY])] == ["a"]
    assert [video.uid for video in catalog.videos()] == ["b"]
    assert [library.root for library in catalog.libraries()] == [Path("/films-too")]


def test_a_file_outside_every_library_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="in no library"):
        catalog.record_failed([FileStamp(Path("/films2/a.mp4"), 1, 1)], "why", content=content("a"))
    assert catalog.videos() == []


@pytest.mark.parametrize("seconds", [-(10**10), 10**10, -(10**18), 10**18])
def test_a_time_of_change_that_the_database_cannot_hold_becomes_the_nearest_one(
    catalog: Catalog, seconds: int
) -> None:
    video_id = record(catalog, "a")
    file = stamp("a.mp4", mtime_ns=seconds * 10**9)
    catalog.attach_file(video_id, file)
    catalog.record_failed([replace(file, path=LIBRARY / "b.mp4")], "broken", content=content("b"))
    catalog.record_failed([replace(file, path=LIBRARY / "c.mp4")], "permission denied")
    stored = [record.stamp for record in catalog.files_under(LIBRARY)]
    assert stored == [replace(file, path=LIBRARY / f"{name}.mp4") for name in "abc"]
    assert stored[0] != stamp("a.mp4")


def test_files_under_stops_at_the_folder_name(catalog: Catalog) -> None:
    record(catalog, "a", "a/1.mp4", "a/b/2.mp4", "ab/3.mp4", "a.mp4", "a0.mp4", "A/4.mp4", "a")
    found = catalog.files_under(LIBRARY / "a")
    assert [file.stamp.path.relative_to(LIBRARY).as_posix() for file in found] == [
        "a",
        "a/1.mp4",
        "a/b/2.mp4",
    ]
    assert len(catalog.files_under(Path("/"))) == 7


# ---------------------------------------------------------------- recording


def test_recording_makes_a_video_searchable_at_all_its_paths(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "z.mp4", "a.mp4")
    (video,) = catalog.videos([video_id])
    assert video.paths == (LIBRARY / "a.mp4", LIBRARY / "z.mp4")
    assert catalog.live_video_ids().tolist() == [video_id]


def test_recording_is_all_or_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("scanonce.storage.catalog.catalog.put_files", stumble)
    with pytest.raises(RuntimeError, match="power cut"):
        record(catalog, "a")
    assert catalog.videos_by_fast_hash("a") == []
    assert catalog.totals().num_files == 0


def test_a_partial_video_needs_a_reason_and_is_searchable(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="reason"):
        catalog.record_indexed(
            content("a"),
            [stamp("a.mp4")],
            state="partial",
            duration_seconds=2.0,
            num_frames=4,
            info=INFO,
        )
    video_id = record(catalog, "a", reason="cut off")
    assert catalog.live_video_ids().tolist() == [video_id]
    (video,) = catalog.videos([video_id])
    assert (video.state, video.reason) == ("partial", "cut off")
    assert catalog.failures() == []


def test_a_failed_video_is_listed_but_not_searchable(catalog: Catalog) -> None:
    catalog.record_failed([stamp("a.mp4")], "no video stream", content=content("a"))
    assert catalog.live_video_ids().tolist() == []
    (failure,) = catalog.failures()
    assert (failure.path, failure.reason) == (LIBRARY / "a.mp4", "no video stream")


def test_a_failed_video_that_works_later_keeps_its_id(catalog: Catalog) -> None:
    failed = catalog.record_failed([stamp("a.mp4")], "no decoder", content=content("a"))
    assert record(catalog, "a") == failed
    (video,) = catalog.videos()
    assert (video.state, video.reason) == ("indexed", None)


def test_an_unreadable_new_file_is_a_failure_without_a_video(catalog: Catalog) -> None:
    assert catalog.record_failed([stamp("a.mp4")], "permission denied") is None
    (file,) = catalog.files_under(LIBRARY)
    assert (file.video_id, file.problem) == (None, "permission denied")
    assert [failure.reason for failure in catalog.failures()] == ["permission denied"]


def test_an_unreadable_known_file_keeps_its_video_and_old_stamp(catalog: Catalog) -> None:
    video_id = record(catalog, "a")
    catalog.record_failed([stamp("a.mp4", mtime_ns=2)], "permission denied")
    (file,) = catalog.files_under(LIBRARY)
    assert (file.video_id, file.stamp, file.problem) == (
        video_id,
        stamp("a.mp4"),
        "permission denied",
    )
    catalog.attach_file(video_id, stamp("a.mp4", mtime_ns=2))
    assert catalog.failures() == []


def test_known_content_shows_both_hashes_and_its_files(catalog: Catalog) -> None:
    video_id = record(catalog, "a")
    catalog.attach_file(video_id, stamp("copy.mp4"), full_hash="full")
    record(catalog, "a")  # indexed again, without the full hash
    (known,) = catalog.videos_by_fast_hash("a")
    assert known.content == Content("a", "a", 100, "full")
    assert known.files == (stamp("a.mp4"), stamp("copy.mp4"))
    assert catalog.videos_by_fast_hash("b") == []


def test_two_contents_may_share_a_fast_hash(catalog: Catalog) -> None:
    for name in ("a", "b"):
        record(catalog, name, fast="same")
    known = catalog.videos_by_fast_hash("same")
    assert [(each.content.uid, each.files) for each in known] == [
        ("a", (stamp("a.mp4"),)),
        ("b", (stamp("b.mp4"),)),
    ]


# ---------------------------------------------------------------- forgetting


def test_forgetting_keeps_a_video_with_another_path(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "a.mp4", "copy.mp4")
    assert catalog.forget_files([LIBRARY / "a.mp4"]) == []
    assert catalog.videos([video_id])[0].paths == (LIBRARY / "copy.mp4",)


def test_forgetting_the_last_path_returns_the_video(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "a.mp4", "copy.mp4")
    record(catalog, "b")
    gone = [LIBRARY / "copy.mp4", LIBRARY / "a.mp4", LIBRARY / "never there.mp4"]
    (removed,) = catalog.forget_files(gone)
    assert (removed.video_id, removed.uid) == (video_id, "a")
    assert removed.paths == (LIBRARY / "a.mp4", LIBRARY / "copy.mp4")
    assert [video.uid for video in catalog.videos()] == ["b"]


def test_a_replaced_file_leaves_its_old_video_invisible_until_it_is_forgotten(
    catalog: Catalog,
) -> None:
    old = record(catalog, "aa", "a.mp4")
    new = record(catalog, "bb", "a.mp4")
    assert catalog.live_video_ids().tolist() == [new]
    assert [video.video_id for video in catalog.videos()] == [new]
    assert catalog.totals().indexed == 1
    assert [(each.video_id, each.paths) for each in catalog.forget_files()] == [(old, ())]


def test_two_files_that_swap_contents_lose_neither(catalog: Catalog) -> None:
    a, b = record(catalog, "a", "1.mp4"), record(catalog, "b", "2.mp4")
    catalog.attach_file(b, stamp("1.mp4", mtime_ns=2))
    catalog.attach_file(a, stamp("2.mp4", mtime_ns=2))
    assert catalog.forget_files() == []
    assert [video.path.name for video in catalog.videos()] == ["2.mp4", "1.mp4"]


def test_video_ids_are_never_used_again(catalog_path: Path, catalog: Catalog) -> None:
    first = record(catalog, "a")
    catalog.forget_files([LIBRARY / "a.mp4"])
    with Catalog.open(catalog_path) as again:
        assert record(again, "a") > first


def test_an_unreadable_file_does_not_keep_orphans_alive(catalog: Catalog) -> None:
    catalog.record_failed([stamp("odd.mp4")], "permission denied")  # a file with no video
    record(catalog, "a")
    assert [video.uid for video in catalog.forget_files([LIBRARY / "a.mp4"])] == ["a"]


# ---------------------------------------------------------------- reading


def test_videos_are_chosen_by_id_and_state(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.storage.catalog.statements._CHUNK", 2)
    ids = [record(catalog, name) for name in "abcde"]
    failed = catalog.record_failed([stamp("f.mp4")], "bad", content=content("f"))
    wanted = np.array([ids[4], ids[0], ids[2], 999, ids[0]])
    assert [video.uid for video in catalog.videos(wanted)] == ["a", "c", "e"]
    assert [video.video_id for video in catalog.videos(states=["failed"])] == [failed]
    assert catalog.videos([]) == []
    assert catalog.videos(ids, states=["failed"]) == []


def test_live_ids_can_be_those_of_one_folder(catalog: Catalog) -> None:
    inside = record(catalog, "a", "cats/a.mp4", "cats/again.mp4")
    both = record(catalog, "b", "b.mp4", "cats/b.mp4")
    record(catalog, "c", "cats and dogs/c.mp4")
    ids = catalog.live_video_ids(LIBRARY / "cats")
    assert ids.tolist() == [inside, both]
    assert ids.dtype == np.int64


def test_totals_count_a_content_once(catalog: Catalog) -> None:
    record(catalog, "a", "a.mp4", "copy.mp4", seconds=5.0)
    record(catalog, "b", "b.mp4", seconds=7.0)
    catalog.record_failed([stamp("c.mp4")], "bad", content=content("c"))
    totals = catalog.totals()
    assert (totals.indexed, totals.partial, totals.failed) == (2, 0, 1)
    assert (totals.searchable, totals.num_files) == (2, 4)
    assert (totals.searchable_seconds, totals.size_bytes) == (12.0, 300)


# ---------------------------------------------------------------- runs


def test_runs_are_listed_newest_first_with_their_counts(catalog: Catalog) -> None:
    killed = catalog.runs.begin("index")
    finished = catalog.runs.begin("update")
    counts = RunCounts(seen=7, indexed=3, failed=1, skipped=3, video_seconds=90.5)
    catalog.runs.finish(finished, "done", counts)
    last, first = catalog.runs.last()
    assert (last.run_id, last.kind, last.outcome, last.counts) == (
        finished,
        "update",
        "done",
        counts,
    )
    assert last.finished_at is not None
    assert last.started_at <= last.finished_at
    assert last.started_at.tzinfo is UTC
    assert (first.run_id, first.finished_at, first.outcome) == (killed, None, None)
    assert [run.run_id for run in catalog.runs.last(limit=1)] == [finished]


# ---------------------------------------------------------------- failures that may pass, scans done again


def test_transient_failures_in_a_row_are_counted(catalog: Catalog) -> None:
    def fail(*, transient: bool) -> int | None:
        catalog.record_failed(
            [stamp("a.mp4")],
            "crashed",
            content=content("a"),
            detail="free(): invalid",
            transient=transient,
        )
        (file,) = catalog.files_under(LIBRARY)
        (known,) = catalog.videos_by_fast_hash("a")
        assert known.transient_failures == file.transient_failures
        return file.transient_failures

    assert [fail(transient=True), fail(transient=True)] == [1, 2]
    assert [(each.reason, each.detail) for each in catalog.failures()] == [
        ("crashed", "free(): invalid")
    ]
    assert fail(transient=False) is None
    assert fail(transient=True) == 1
    record(catalog, "a")
    assert catalog.files_under(LIBRARY)[0].transient_failures is None
    assert catalog.failures() == []


def test_a_content_scanned_again_takes_all_files_of_the_old_scan(catalog: Catalog) -> None:
    old = record(catalog, "a", "a.mp4", "copy.mp4")
    other = record(catalog, "b")
    new = record(catalog, "a-2", "a.mp4", fast="a", mtime_ns=5, replaces=old)
    assert new not in (old, other)
    (video,) = catalog.videos([old, new])
    assert (video.uid, [path.name for path in video.paths]) == ("a-2", ["a.mp4", "copy.mp4"])
    assert catalog.live_video_ids().tolist() == [other, new]
    assert catalog.uids() == {"a-2", "b"}
    assert catalog.forget_files() == []


# ---------------------------------------------------------------- following changes


class Follower:
    """A reader that reads nothing but the changes."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.videos: dict[int, Video] = {}
        self.mark: ChangeMark | None = None

    def follow(self) -> tuple[int, int]:
        """Read the changes; return the numbers of changed and of removed videos."""
        changes = self.catalog.searchable_changes(self.mark)
        if changes.is_all:
            self.videos.clear()
        self.videos.update((video.video_id, video) for video in changes.videos)
        for video_id in changes.gone:
            self.videos.pop(video_id, None)
        self.mark = changes.mark
        return len(changes.videos), len(changes.gone)

    @property
    def is_right(self) -> bool:
        everything = self.catalog.videos(states=SEARCHABLE)
        return self.videos == {video.video_id: video for video in everything}


def change_at_random(catalog: Catalog, rng: np.random.Generator, number: int) -> None:
    """Change videos and files in one of all possible ways."""
    videos = catalog.videos()
    some = videos[rng.integers(len(videos))] if videos else None
    name = f"{number}.mp4"
    match rng.integers(9):
        case 0 | 1:
            record(catalog, f"c{number}", name, f"copies/{name}")
        case 2:
            catalog.record_failed([stamp(name)], "no stream", content=content(f"c{number}"))
        case 3 if some is not None:
            catalog.attach_file(some.video_id, stamp(name))
        case 4 if some is not None:  # a file gets the content of another one
            other = videos[rng.integers(len(videos))]
            catalog.attach_file(some.video_id, replace(stamp(name), path=other.path))
        case 5 if some is not None:
            catalog.forget_files(some.paths[: rng.integers(1, 3)])
        case 6 if some is not None and some.state == "indexed":
            uid = f"{content_of(some.uid)}-{number}"
            record(catalog, uid, some.path.name, reason="cut off", replaces=some.video_id)
        case 7 if some is not None and some.state == "failed":
            record(catalog, some.uid, some.path.name)
        case 8 if number % 5 == 0:
            catalog.mark_unscanned("not yet")
        case _:
            catalog.forget_libraries([LIBRARY / "copies"])


def test_a_reader_of_changes_knows_the_same_as_a_reader_of_everything(catalog: Catalog) -> None:
    rng = np.random.default_rng(4)
    often, seldom = Follower(catalog), Follower(catalog)
    for number in range(100):
        change_at_random(catalog, rng, number)
        often.follow()
        assert often.is_right, number
        if number % 10 == 9:
            seldom.follow()
            assert seldom.is_right, number


def test_only_changes_of_videos_are_reported(catalog: Catalog) -> None:
    ids = [record(catalog, name) for name in "abcd"]
    reader = Follower(catalog)
    assert reader.follow() == (4, 0)
    catalog.labels.add(ids, ["holiday"])
    catalog.runs.finish(catalog.runs.begin("index"), "done", RunCounts())
    catalog.add_library(Path("/elsewhere"))
    catalog.record_failed([stamp("e.mp4")], "cannot be read")
    assert reader.follow() == (0, 0)
    catalog.attach_file(ids[1], stamp("copy.mp4"))
    assert reader.follow() == (1, 0)
    catalog.forget_files([stamp("a.mp4").path])
    assert reader.follow() == (0, 1)
    catalog.attach_file(ids[2], stamp("d.mp4"))  # which had another content
    assert reader.follow() == (1, 1)
    assert reader.is_right


def test_a_catalogue_that_replaced_another_is_read_from_scratch(
    catalog: Catalog, tmp_path: Path
) -> None:
    record(catalog, "a")
    backup = tmp_path / "backup.sqlite"
    reader = Follower(catalog)
    for name in ("b", "c"):  # afterwards the numbers of changes are the same, but mean other videos
        catalog.copy_to(backup)
        gone = record(catalog, name)
        reader.follow()
        catalog.replace_by(backup)
        record(catalog, f"{name}-2", "other.mp4")
        reader.follow()
        assert reader.is_right
        assert reader.videos[gone].uid == f"{name}-2"
        catalog.forget_files([stamp("other.mp4").path])


def test_a_catalogue_of_an_older_version_replaces_a_new_one(
    catalog: Catalog, tmp_path: Path
) -> None:
    record(catalog, "a")
    backup = tmp_path / "backup.sqlite"
    catalog.copy_to(backup)
    triggers = sql(backup, "SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for statement in (
        *(f"DROP TRIGGER {name}" for (name,) in triggers),
        *("DROP TABLE line_words", "DROP TABLE file_words", "DROP VIEW line_texts"),
        *("DROP TABLE lines", "DROP TABLE tracks", "DROP TABLE saved_searches"),
        "DROP TABLE facts",
        "DROP TABLE video_changes",
        "DROP TABLE lineage",
        "ALTER TABLE videos DROP COLUMN offset_seconds",
        "UPDATE alembic_version SET version_num = '0003'",
    ):
        sql(backup, statement)
    reader = Follower(catalog)
    reader.follow()
    catalog.replace_by(backup)
    reader.follow()
    record(catalog, "b")
    assert reader.follow() == (1, 0)
    assert reader.is_right


# ---------------------------------------------------------------- other spellings of a path


def composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Films on the disk: in a folder with an accent in its name, and in another one."""
    for name in (decomposed("Séjour"), "plain"):
        (tmp_path / "films" / name).mkdir(parents=True)
        (tmp_path / "films" / name / "é.mp4").touch()
    return tmp_path / "films"


def record_all(catalog: Catalog, root: Path) -> None:
    catalog.add_library(root)
    for number, path in enumerate(sorted(root.rglob("*.mp4")), start=1):
        stamp = FileStamp(path, 1, number)
        catalog.record_indexed(
            content(str(number)),
            [stamp],
            state="indexed",
            duration_seconds=8.0,
            num_frames=16,
            info=INFO,
        )


@pytest.mark.parametrize("form", [composed, decomposed])
@pytest.mark.parametrize("name", ["Séjour", "Séjour/é.mp4"])
def test_a_path_is_found_in_any_form_of_unicode(
    catalog: Catalog, films: Path, form: Callable[[str], str], name: str
) -> None:
    record_all(catalog, films)
    assert len(catalog.matching_videos(under=[films / form(name)])) == 1
    assert len(catalog.live_video_ids(films / form(name))) == 1


@pytest.mark.parametrize("named", ["", "plain", "plain/é.mp4"])
@pytest.mark.parametrize("indexed_by", ["films", "link", "above/link"])
@pytest.mark.parametrize("asked_by", ["films", "link", "above/link", "other"])
def test_a_path_is_found_through_any_link(
    catalog: Catalog, films: Path, named: str, indexed_by: str, asked_by: str
) -> None:
    base = films.parent
    (base / "link").symlink_to(films)
    (base / "above").symlink_to(base)
    (base / "other").symlink_to(base / "link")
    record_all(catalog, base / indexed_by)
    num_found = len(catalog.matching_videos(under=[base / asked_by / named]))
    assert num_found == (1 if named else 2)


def test_a_folder_above_the_libraries_is_found_through_a_link(
    catalog: Catalog, films: Path
) -> None:
    (films.parent.parent / "all").symlink_to(films.parent)
    record_all(catalog, films)
    assert len(catalog.matching_videos(under=[films.parent.parent / "all"])) == 2


def test_a_path_as_it_is_recorded_comes_first(catalog: Catalog, films: Path) -> None:
    twin = films / composed("Séjour")
    twin.mkdir()
    (twin / "twin.mp4").touch()
    record_all(catalog, films)
    assert catalog.spelled(twin) == [twin]
    assert catalog.spelled(films / "nowhere") == [films / "nowhere"]


def test_a_hard_link_is_not_the_path_of_its_file(catalog: Catalog, films: Path) -> None:
    record_all(catalog, films)
    (films.parent / "hard.mp4").hardlink_to(films / "plain" / "é.mp4")
    assert len(catalog.matching_videos(under=[films.parent / "hard.mp4"])) == 0


def test_a_path_on_a_disk_that_is_away_is_found_in_any_form(catalog: Catalog) -> None:
    path = LIBRARY / decomposed("Séjour")
    record(catalog, "a", f"{path.name}/a.mp4")
    assert catalog.spelled(LIBRARY / composed("Séjour")) == [path]
