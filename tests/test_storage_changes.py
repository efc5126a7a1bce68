"""Readers that follow the changes of a catalogue."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.catalog.entries import ChangeMark, RunCounts, content_of
from scanonce.storage.records import Video
from tests.catalogs import LIBRARY, content, record, sql, stamp


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
            catalog.forget_library(LIBRARY / "copies")


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
        record(catalog, f"not {name}", "other.mp4")
        reader.follow()
        assert reader.is_right
        assert reader.videos[gone].uid == f"not {name}"
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
        "DROP TABLE video_changes",
        "DROP TABLE lineage",
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
