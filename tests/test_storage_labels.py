"""Labels: what they may be called, and that they stay with what a file holds."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

import scanonce.storage.catalog.database
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.database import SCHEMA_REVISION
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.catalog.labels import folded, normal_label
from scanonce.storage.errors import QueryError
from scanonce.storage.records import VideoInfo

INFO = VideoInfo(duration_seconds=9.0, width=64, height=48, fps=25.0, codec="h264")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        opened.add_library(Path("/films"))
        yield opened


def record(catalog: Catalog, uid: str, *, name: str = "", replaces: int | None = None) -> int:
    return catalog.record_indexed(
        Content(uid, uid, 1),
        [FileStamp(Path(f"/films/{name or uid}.mp4"), 1, 1)],
        state="indexed",
        duration_seconds=8.0,
        num_frames=16,
        info=INFO,
        replaces=replaces,
    )


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("holiday", "holiday"),
        ("  two   words ", "two words"),
        ("a\u00a0b", "a b"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("x" * 100, "x" * 100),
        ("'; DROP TABLE labels; --", "'; DROP TABLE labels; --"),
    ],
)
def test_a_label_is_kept_without_stray_spaces_and_composed(text: str, label: str) -> None:
    assert normal_label(text) == label


@pytest.mark.parametrize(
    "text", ["", " ", "\u3000", "x" * 101, "a\nb", "\x00", "a\x7f", "\ud800", "a\u2028b", "\t"]
)
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="label"):
        normal_label(text)


@given(st.text())
def test_a_normal_label_is_normal_and_can_be_stored(text: str) -> None:
    try:
        label = normal_label(text)
    except QueryError:
        return
    assert normal_label(label) == label
    assert folded(f" {label} ") == folded(label)
    label.encode()


# ---------------------------------------------------------------- on videos


def test_labels_are_added_counted_and_taken_away(catalog: Catalog) -> None:
    one, two, three = (record(catalog, uid) for uid in "abc")
    assert catalog.labels.add([one, two, 999], ["Holiday", "work"]) == 4
    assert catalog.labels.add([two, three], [" holiday"]) == 1
    assert catalog.labels.counts() == {"Holiday": 3, "work": 2}
    assert catalog.labels.of([three, one]) == {one: ("Holiday", "work"), three: ("Holiday",)}
    assert catalog.labels.remove([one, two], ["WORK", "never there"]) == 2
    assert catalog.labels.counts() == {"Holiday": 3}
    assert catalog.labels.add([], ["x"]) == catalog.labels.remove([one], []) == 0


def test_a_label_that_is_no_longer_in_use_may_come_back_in_another_spelling(
    catalog: Catalog,
) -> None:
    video = record(catalog, "a")
    catalog.labels.add([video], ["STRASSE"])
    catalog.labels.add([video], ["Straße"])
    assert catalog.labels.counts() == {"STRASSE": 1}
    catalog.labels.remove([video], ["straße"])
    catalog.labels.add([video], ["Straße"])
    assert catalog.labels.of([video]) == {video: ("Straße",)}


def test_nothing_is_added_where_one_of_the_labels_is_none(catalog: Catalog) -> None:
    video = record(catalog, "a")
    with pytest.raises(QueryError):
        catalog.labels.add([video], ["good", "b\nad"])
    assert catalog.labels.counts() == {}


def test_labels_go_to_the_scan_that_takes_the_place_of_another(catalog: Catalog) -> None:
    old = record(catalog, "a")
    catalog.labels.add([old], ["holiday"])
    new = record(catalog, "a-2", name="a", replaces=old)
    assert catalog.labels.of([old, new]) == {new: ("holiday",)}
    taken = record(catalog, "b")
    catalog.labels.add([taken], ["holiday", "work"])
    assert record(catalog, "b", replaces=new) == taken  # which has one of them already
    assert catalog.labels.of([new, taken]) == {taken: ("holiday", "work")}


def test_labels_stay_where_a_file_moves_and_go_where_the_last_one_does(catalog: Catalog) -> None:
    video = record(catalog, "a")
    catalog.labels.add([video], ["holiday"])
    catalog.attach_file(video, FileStamp(Path("/films/moved.mp4"), 1, 2))
    assert catalog.forget_files([Path("/films/a.mp4")]) == []
    assert catalog.labels.counts() == {"holiday": 1}
    catalog.forget_files([Path("/films/moved.mp4")])
    assert catalog.labels.counts() == {}
    assert record(catalog, "a") != video
    assert catalog.labels.counts() == {}


def test_labels_go_with_a_library_that_is_forgotten(catalog: Catalog) -> None:
    catalog.labels.add([record(catalog, "a")], ["holiday"])
    catalog.forget_library(Path("/films"))
    assert catalog.labels.counts() == {}


def test_an_index_that_is_made_anew_begins_with_the_labels_and_takes_over_later_ones(
    catalog: Catalog, tmp_path: Path
) -> None:
    kept, again, gone = (record(catalog, uid) for uid in "abc")
    catalog.labels.add([kept, again, gone], ["before"])
    catalog.copy_to(tmp_path / "beside.sqlite")
    with Catalog.open(tmp_path / "beside.sqlite") as beside:
        beside.mark_unscanned("not yet")
        assert beside.labels.of([kept]) == {kept: ("before",)}
        record(beside, "a")
        replaced = record(beside, "b-2", name="b", replaces=again)
        beside.forget_files([Path("/films/c.mp4")])
        new = record(beside, "d")
        catalog.labels.add([kept, again], ["After"])  # meanwhile
        catalog.labels.remove([kept], ["before"])
        other = record(catalog, "e")
        catalog.labels.add([record(catalog, "d"), other], ["late"])
        beside.labels.take_over(catalog.labels)
        assert beside.labels.of([kept, replaced, gone, new]) == {
            kept: ("After",),
            replaced: ("After", "before"),
            new: ("late",),
        }


def test_labelling_goes_on_while_a_run_writes(catalog: Catalog) -> None:
    """Many short writes of both; nothing is lost, nobody gives up."""
    labelled = [record(catalog, f"first {number}") for number in range(20)]
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with Catalog.open(catalog.path) as writer:
                for number in range(40):
                    record(writer, f"content {number}")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for video in labelled:
        catalog.labels.add([video], ["mine"])
    thread.join()
    assert errors == []
    assert catalog.labels.counts() == {"mine": 20}
    assert len(catalog.live_video_ids()) == 60


@pytest.mark.parametrize("before", ["0001", "0002"])
def test_a_catalogue_without_labels_gets_their_table_and_keeps_its_videos(
    tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "catalog.sqlite"

    def to_older(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option(
            "script_location", str(scanonce.storage.catalog.database._MIGRATIONS)
        )
        command.upgrade(config, before)

    monkeypatch.setattr(scanonce.storage.catalog.database, "_migrate", to_older)
    Catalog.open(place).close()
    monkeypatch.undo()
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("INSERT INTO libraries VALUES (1, '/films', '2024-01-01 00:00:00')")
        names = "uid, fast_hash, state, duration_seconds, num_frames, width, height, fps, codec"
        connection.execute(
            f"INSERT INTO videos ({names}, size_bytes, indexed_at) "
            "VALUES ('a', 'a', 'indexed', 8, 16, 64, 48, 25, 'h264', 1, '2024-01-01 00:00:00')"
        )
        connection.execute("INSERT INTO files VALUES (1, 1, '/films/a.mp4', 1, 1, 1, NULL)")
        connection.commit()
    with Catalog.open(place) as catalog:
        (video,) = catalog.videos()
        assert (video.uid, catalog.labels.counts()) == ("a", {})
        catalog.labels.add([video.video_id], ["holiday"])
        assert catalog.labels.counts() == {"holiday": 1}
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [
            (SCHEMA_REVISION,)
        ]
