"""Lines in the catalogue: what is kept, found and removed."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.passages import Passages
from scanonce.storage.catalog.words import matching, quoted, spaced
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.records import Line
from tests.catalogs import LIBRARY, record, sql

TALK = ("We met on Discord.", "Ein Café in Zürich", "東京の朝ごはん")


def said(video_id: int, *texts: str) -> list[Line]:
    return [
        Line(video_id, "said", 2.0 * k, 2.0 * k + 2, text, 0.9, "en")
        for k, text in enumerate(texts)
    ]


def put(catalog: Catalog, name: str, *texts: str) -> int:
    video_id = record(catalog, name)
    catalog.lines.put(video_id, "said", said(video_id, *texts), source="a model")
    return video_id


def find(catalog: Catalog, expression: str, **more: object) -> list[str]:
    found = catalog.lines.find(expression, limit=10, **more)  # type: ignore[arg-type]
    return [each.line.text for each in found]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("discord", TALK[0]),
        ("CAFE", TALK[1]),
        ("zurich", TALK[1]),
        ("東京", TALK[2]),
        ("朝", TALK[2]),
        ("we met", TALK[0]),
    ],
)
def test_a_line_is_found_by_its_words_whatever_case_accents_and_script(
    catalog: Catalog, query: str, found: str
) -> None:
    put(catalog, "a", *TALK)
    assert find(catalog, quoted(spaced(query))) == [found]


@pytest.mark.parametrize("query", ['"', "a AND", "NEAR(", "*", "col:umn", "x\0y", "-"])
def test_no_query_is_taken_for_syntax(catalog: Catalog, query: str) -> None:
    put(catalog, "a", *TALK)
    assert find(catalog, matching([query, "discord"])) == [TALK[0]]


def test_lines_come_back_as_they_were_put(catalog: Catalog) -> None:
    video_id = put(catalog, "a", *TALK)
    assert catalog.lines.of(video_id) == said(video_id, *TALK)
    assert catalog.lines.of(video_id, ["written"]) == []
    totals = catalog.lines.totals()["said"]
    assert (totals.videos, totals.problems, totals.lines) == (1, 0, 3)


def test_a_track_that_is_made_again_replaces_the_old_one(catalog: Catalog) -> None:
    video_id = put(catalog, "a", *TALK)
    catalog.lines.put(video_id, "said", said(video_id, "other words"), source="another")
    assert find(catalog, matching(["discord"])) == []
    assert find(catalog, matching(["other"])) == ["other words"]


def test_filters_restrict_tracks_and_videos(catalog: Catalog) -> None:
    first, second = put(catalog, "a", "a boat"), put(catalog, "b", "the boat")
    assert find(catalog, matching(["boat"]), videos=[second]) == ["the boat"]
    assert find(catalog, matching(["boat"]), videos=[]) == []
    assert find(catalog, matching(["boat"]), tracks=["written"]) == []
    assert len(find(catalog, matching(["boat"]), tracks=["said"], videos=[first, second])) == 2


def test_a_scan_of_the_images_again_keeps_lines_and_forgetting_removes_them(
    catalog: Catalog,
) -> None:
    old = put(catalog, "a", *TALK)
    new = record(catalog, "a-2", "a.mp4", replaces=old)
    assert new != old
    assert [line.text for line in catalog.lines.of(new)] == list(TALK)
    assert find(catalog, matching(["discord"])) == [TALK[0]]
    catalog.forget_files([LIBRARY / "a.mp4"])
    assert find(catalog, matching(["discord"])) == []
    assert catalog.lines.totals() == {}
    assert catalog.lines.find_paths(matching(["a"]), limit=5) == []


def test_a_reader_notices_a_new_track(catalog: Catalog) -> None:
    video_id = record(catalog, "a")
    mark = catalog.searchable_changes().mark
    catalog.lines.put(video_id, "said", said(video_id, "hello"), source="a model")
    assert [video.video_id for video in catalog.searchable_changes(mark).videos] == [video_id]


def test_paths_are_found_by_their_words(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "my_holiday-2019.mp4")
    assert catalog.lines.find_paths(matching(["holiday"]), limit=5) == [
        (video_id, str(LIBRARY / "my_holiday-2019.mp4"))
    ]


def test_a_copy_takes_over_the_tracks_that_it_lacks(catalog: Catalog, tmp_path: Path) -> None:
    put(catalog, "a", *TALK)
    with Catalog.open(tmp_path / "other.sqlite") as other:
        other.add_library(LIBRARY)
        theirs = record(other, "a-3", "a.mp4")
        other.lines.take_over(catalog.lines)
        assert [line.text for line in other.lines.of(theirs)] == list(TALK)
        other.lines.put(theirs, "said", [], source="newer")
        other.lines.take_over(catalog.lines)
        assert other.lines.of(theirs) == []


def test_a_backup_has_the_lines(catalog: Catalog, tmp_path: Path) -> None:
    put(catalog, "a", *TALK)
    catalog.copy_to(tmp_path / "copy.sqlite")
    with Catalog.open(tmp_path / "copy.sqlite", read_only=True) as copy:
        assert find(copy, matching(["discord"])) == [TALK[0]]
        assert copy.integrity_problems() == []


def test_a_video_that_was_forgotten_meanwhile_gets_no_lines(catalog: Catalog) -> None:
    assert not catalog.lines.put(99, "said", [], source="a model")


def test_vectors_keep_their_direction_in_a_byte_a_number(catalog: Catalog) -> None:
    video_id = record(catalog, "a")
    rows = np.random.default_rng(0).standard_normal((3, 384)).astype(np.float32)
    vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    catalog.lines.put(
        video_id,
        "said",
        said(video_id, "one", "two", "three", "four"),
        source="a model",
        embedder="e",
        passages=Passages(vectors, np.array([1, 1, 2])),
    )
    (track,) = catalog.lines.vectors("e")
    assert (track.video_id, track.passages.num_lines.tolist()) == (video_id, [1, 1, 2])
    assert np.einsum("ij,ij->i", track.passages.vectors, vectors).min() > 0.999
    assert catalog.lines.vectors("another") == []
    assert catalog.lines.without_vectors("another") == [track.track_id]


@pytest.mark.parametrize(
    ("column", "value"),
    [("passages", b"nonsense"), ("name", "invented"), ("passages", b"")],
)
def test_a_forged_track_is_damage_and_no_crash(
    catalog: Catalog, column: str, value: object
) -> None:
    video_id = put(catalog, "a", *TALK)
    with catalog.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE tracks SET embedder = 'e', passages = x'00', {column} = ?", (value,)
        )
    with pytest.raises(IndexDirectoryError, match="damaged"):
        catalog.lines.vectors("e", [video_id])


def test_a_forged_line_is_damage_and_no_crash(catalog: Catalog, catalog_path: Path) -> None:
    video_id = put(catalog, "a", *TALK)
    catalog.close()
    sql(catalog_path, "UPDATE lines SET start_seconds = 'soon'")
    with (
        closing(Catalog.open(catalog_path)) as again,
        pytest.raises(IndexDirectoryError, match="damaged"),
    ):
        again.lines.of(video_id)


def test_neighbours_of_lines_are_those_of_their_track_and_time(catalog: Catalog) -> None:
    first = put(catalog, "a", "one", "two", "three", "four")
    put(catalog, "b", "five", "six")
    (two,) = catalog.lines.find(quoted("two"), limit=1)
    (six,) = catalog.lines.find(quoted("six"), limit=1)
    near = catalog.lines.near([(two, 1.0, 4.5), (six, 2.5, 3.0), (two, 90.0, 99.0)])
    texts = [[each.line.text for each in found] for found in near]
    assert texts == [["one", "two", "three"], ["six"], []]
    assert near[0][0].line.video_id == first
    assert catalog.lines.near([]) == []


def test_lines_without_a_rank_are_any_that_match(catalog: Catalog) -> None:
    put(catalog, "a", *("we met again",) * 30)
    found = catalog.lines.find(quoted("met"), limit=10, ranked=False)
    assert len({each.line_id for each in found}) == 10
