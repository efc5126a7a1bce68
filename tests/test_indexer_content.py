"""Files that only have the extension of a video."""

import random
from pathlib import Path

import pytest

from scanonce.indexer.content import is_other_content
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from tests.colours import write_film
from tests.indexes import build_index
from tests.videos import write_garbage, write_video

SOURCE = "export interface Zählung { readonly id: number }\n" * 3
TEXTS = {
    "a.d.ts": SOURCE.encode(),
    "b.mts": SOURCE.encode("latin-1"),
    "c.ts": b'<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1"></TS>' * 200,
    "d.vob": b"CLASS Customer INHERIT Person\r\n",
    "e.asf": b"[Reference]\r\nRef1=http://127.0.0.1/a.asf\r\n",
    "f.mp4": b"<!DOCTYPE html><title>404 Not Found</title>",
    "g.MPG": "\ufeffnotes".encode("utf-16-le"),
    "h.wmv": "\ufeffnotes".encode(),
    "i.mts": b"MTSM\x00\x04\x00\x08\x00\x08" + bytes(range(256)) * 20,  # a schematic of a game
    "j.m2ts": random.Random(0).randbytes(5000),
    "k.vob": "映画のメモ。".encode() * 500,
    "l.asf": "メモ: a film of ours\n".encode("shift-jis") * 99,
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_other_data_are_no_videos(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[name])
    assert is_other_content(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ts", {}),
        ("a.m2ts", {"container_format": "mpegts", "container_options": {"mpegts_m2ts_mode": "1"}}),
        ("a.mts", {"container_format": "mpegts"}),
        ("mp4.ts", {"container_format": "mp4"}),
        ("matroska.ts", {"container_format": "matroska"}),
        ("a.vob", {"container_format": "vob", "codec": "mpeg2video"}),
        ("a.mpg", {"codec": "mpeg2video"}),
        ("a.asf", {"codec": "mpeg4"}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.flv", {}),
        ("a.mov", {}),
        ("a.mkv", {}),
        ("a.mxf", {"codec": "mpeg2video", "fps": 25}),
    ],
)
def test_videos_are_videos_whatever_they_are_called(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = write_video(tmp_path / name, **options).path  # type: ignore[arg-type]
    assert not is_other_content(path)


@pytest.mark.parametrize("lost", [1, 187, 1000, 100_000])
def test_a_transport_stream_that_is_cut_or_damaged_at_its_beginning_is_one(
    tmp_path: Path, lost: int
) -> None:
    data = write_video(tmp_path / "a.ts").path.read_bytes()
    for name, content in (("cut.ts", data[min(lost, 2000) :]), ("noise.ts", b"\xff" * lost + data)):
        path = tmp_path / name
        path.write_bytes(content)
        assert not is_other_content(path)


def test_204_bytes_in_a_packet_are_a_transport_stream_too(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts").path.read_bytes()
    packets = [data[start : start + 188] + bytes(16) for start in range(0, len(data), 188)]
    (tmp_path / "b.ts").write_bytes(b"".join(packets))
    assert not is_other_content(tmp_path / "b.ts")


@pytest.mark.parametrize("content", [b"", bytes(5000)])
def test_a_file_whose_content_is_still_to_come_may_be_a_video(
    tmp_path: Path, content: bytes
) -> None:
    for name in ("a.mp4", "a.ts"):
        (tmp_path / name).write_bytes(content)
        assert not is_other_content(tmp_path / name)


def test_other_contents_are_no_failures_and_are_looked_at_again(tmp_path: Path) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    write_film(films / "a.mp4", [("red", 4)])
    for name, content in TEXTS.items():
        (films / name).write_bytes(content)
    for _ in range(2):
        report = build_index(layout, films)
        assert (report.problems, report.failed_before, report.counts.failed) == ((), (), 0)
        assert [path.name for path in report.other_contents] == sorted(TEXTS)
        assert report.counts.seen == 1
    write_film(films / "f.mp4", [("blue", 4)])
    assert build_index(layout, films).counts.indexed == 1
    (films / "f.mp4").write_bytes(TEXTS["f.mp4"])
    assert build_index(layout, films).counts.forgotten == 1


def test_a_text_that_failed_as_a_video_before_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, layout = tmp_path / "films", IndexLayout(tmp_path / "index")
    write_film(films / "a.mp4", [("red", 4)])
    (films / "a.ts").write_text(SOURCE)
    with monkeypatch.context() as patch:
        patch.setattr("scanonce.indexer.plan.is_other_content", lambda path: False)
        assert build_index(layout, films).counts.failed == 1
    assert build_index(layout, films).counts.forgotten == 1
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        assert catalog.failures() == []


def test_a_text_that_is_named_becomes_no_folder_of_the_index(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_text(SOURCE)
    layout = IndexLayout(tmp_path / "index")
    report = build_index(layout, path)
    assert "not a video by its content. It is not added" in report.problems[0].reason
    assert report.nothing_usable
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        assert catalog.libraries() == []


def test_garbage_is_a_failure(tmp_path: Path) -> None:
    assert not is_other_content(write_garbage(tmp_path / "a.mp4"))
    (tmp_path / "b.mp4").write_bytes(b"\xff" * 5000)
    assert not is_other_content(tmp_path / "b.mp4")
