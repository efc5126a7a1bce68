"""Every row of docs/incremental.md, from the folder to the answer of a search: the files decoded and the videos found.

Each test begins with a library that is indexed: films/a.mp4 (red) and films/sub/b.mkv (blue).
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scanonce.indexer.hashing import fast_hash
from scanonce.indexer.pipeline import IndexReport
from scanonce.indexer.settings import IndexerSettings
from scanonce.media.answers import Failed
from scanonce.media.workers import DecodePool
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import ConfigError
from scanonce.storage.layout import IndexLayout
from tests.colours import write_film
from tests.indexes import build_index, open_engine, read_videos
from tests.videos import between_samples, cut, write_garbage, write_noise, write_video

ROOT = Path(__file__).parents[1]
SETTINGS = IndexerSettings(decode_workers=1, thumbnail_seconds=0.0)


@dataclass
class World:
    """A folder of films and its index."""

    base: Path
    decoded: list[str] = field(default_factory=list)
    """Names of the files that the last run passed to the decoder."""

    @property
    def films(self) -> Path:
        return self.base / "films"

    @property
    def layout(self) -> IndexLayout:
        return IndexLayout(self.base / "index")

    def index(
        self, *roots: Path, exclude: tuple[str, ...] | None = None, **options: Any
    ) -> IndexReport:
        """Run the indexer, by default over the films."""
        self.decoded.clear()
        left_out = {} if exclude is None else {"exclude": exclude}
        settings = SETTINGS.model_copy(update=left_out)
        return build_index(self.layout, *(roots or [self.films]), settings=settings, **options)

    def found(self, colour: str) -> set[str]:
        """Return all paths, relative to ``base``, of the videos that a search finds for a colour."""
        with open_engine(self.layout) as engine:
            moments = engine.search(colour, top=50).moments
            ids = {moment.video_id for moment in moments if moment.score > 0.9}
            videos = [engine.videos[video_id] for video_id in ids]
        return {path.relative_to(self.base).as_posix() for video in videos for path in video.paths}

    def known(self) -> dict[str, str]:
        """Return the state of every video by its path relative to ``base``."""
        return {
            path.relative_to(self.base).as_posix(): video.state
            for video in read_videos(self.layout)
            for path in video.paths
        }

    def stored(self) -> int:
        """Return the number of videos with features on the disk."""
        return len(list(self.layout.features.rglob("*.safetensors")))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An indexed library; paths in an index are absolute, so all tests use this folder."""
    base = tmp_path_factory.mktemp("incremental")
    world = World(base)
    write_film(world.films / "a.mp4", [("red", 4)])
    write_film(world.films / "sub" / "b.mkv", [("blue", 4)])
    assert world.index().counts.indexed == 2
    for name in ("films", "index"):
        shutil.copytree(base / name, base / "as it was" / name)
    return base


@pytest.fixture
def world(base: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for path in base.iterdir():
        if path.name != "as it was":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("films", "index"):
        shutil.copytree(base / "as it was" / name, base / name)  # with modification times
    world = World(base)
    real = DecodePool.decode

    def decode(self: DecodePool, paths: list[Path]) -> object:
        world.decoded.extend(path.name for path in paths)
        return real(self, paths)

    monkeypatch.setattr(DecodePool, "decode", decode)
    return world


def test_nothing_happened(world: World) -> None:
    assert world.index().counts.skipped == 2
    assert world.decoded == []
    assert (world.found("red"), world.found("blue")) == ({"films/a.mp4"}, {"films/sub/b.mkv"})


def test_a_new_file_is_decoded_and_found(world: World) -> None:
    write_film(world.films / "c.mp4", [("green", 4)])
    world.index()
    assert world.decoded == ["c.mp4"]
    assert world.found("green") == {"films/c.mp4"}


def test_a_changed_file_is_found_by_its_new_content_only(world: World) -> None:
    write_film(world.films / "a.mp4", [("green", 4)])
    world.index()
    assert world.decoded == ["a.mp4"]
    assert (world.found("red"), world.found("green")) == (set(), {"films/a.mp4"})
    assert world.stored() == 2, "the features of the old content are deleted"


def test_a_new_time_of_change_costs_no_decoding(world: World) -> None:
    os.utime(world.films / "a.mp4", (1, 1))
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/a.mp4"}


@pytest.mark.parametrize("year", [1602, 1969, 2300])
def test_any_time_of_change_is_held(world: World, year: int) -> None:
    seconds = round((year - 1970) * 365.25 * 86400)
    for film in (
        write_film(world.films / "0.mp4", [("green", 4)]),
        write_garbage(world.films / "1.mp4"),
        world.films / "a.mp4",
    ):
        os.utime(film, (seconds, seconds))
    report = world.index()
    assert (report.counts.indexed, report.counts.failed) == (1, 1)
    assert (world.found("green"), world.found("red")) == ({"films/0.mp4"}, {"films/a.mp4"})
    assert world.index().counts.skipped == 3
    assert world.decoded == []


def test_new_content_of_the_same_size_and_time_is_not_seen(world: World) -> None:
    film = world.films / "a.mp4"
    before = film.stat()
    write_film(world.base / "other.mp4", [("green", 4)])
    content = (world.base / "other.mp4").read_bytes().ljust(before.st_size, b"\0")
    film.write_bytes(content[: before.st_size])
    os.utime(film, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/a.mp4"}


def test_a_moved_file_costs_no_decoding(world: World) -> None:
    (world.films / "a.mp4").rename(world.films / "sub" / "a.mp4")
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/sub/a.mp4"}


def test_a_renamed_file_or_folder_costs_no_decoding(world: World) -> None:
    (world.films / "a.mp4").rename(world.films / "z.mp4")
    (world.films / "sub").rename(world.films / "bus")
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/z.mp4"}
    assert world.found("blue") == {"films/bus/b.mkv"}


def test_a_file_moved_to_another_library_costs_no_decoding_whichever_is_scanned_first(
    world: World,
) -> None:
    (world.base / "more").mkdir()
    (world.films / "a.mp4").rename(world.base / "more" / "a.mp4")
    world.index(world.base / "more")
    assert world.decoded == []
    assert world.found("red") == {"films/a.mp4", "more/a.mp4"}, "films was not scanned yet"
    world.index()
    assert world.found("red") == {"more/a.mp4"}
    (world.base / "more" / "a.mp4").rename(world.films / "a.mp4")
    world.index()
    assert world.decoded == []


def test_a_library_that_a_file_left_is_scanned_first_only_together_with_the_other(
    world: World,
) -> None:
    (world.base / "more").mkdir()
    (world.films / "a.mp4").rename(world.base / "more" / "a.mp4")
    world.index(world.films, world.base / "more")
    assert world.decoded == []
    (world.base / "more" / "a.mp4").rename(world.films / "a.mp4")
    (world.base / "more" / "sub").mkdir()  # the library exists and is not empty
    world.index(world.base / "more")
    world.index(world.films)
    assert world.decoded == ["a.mp4"], "it was deleted in one run and put back in the next"
    assert world.found("red") == {"films/a.mp4"}


def test_a_copy_costs_no_decoding(world: World) -> None:
    shutil.copy(world.films / "a.mp4", world.films / "copy.mp4")
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/a.mp4", "films/copy.mp4"}
    assert world.stored() == 2, "stored once"


def test_a_hard_link_is_a_copy_and_a_symbolic_link_is_its_file(world: World) -> None:
    os.link(world.films / "a.mp4", world.films / "hard.mp4")
    (world.films / "soft.mp4").symlink_to(world.films / "a.mp4")
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/a.mp4", "films/hard.mp4"}


def test_of_two_copies_one_is_deleted(world: World) -> None:
    shutil.copy(world.films / "a.mp4", world.films / "copy.mp4")
    world.index()
    (world.films / "a.mp4").unlink()
    world.index()
    assert world.decoded == []
    assert world.found("red") == {"films/copy.mp4"}


def test_a_deleted_file_is_found_no_more(world: World) -> None:
    (world.films / "a.mp4").unlink()
    assert world.index().counts.forgotten == 1
    assert world.found("red") == set()
    assert world.stored() == 1


def test_a_file_put_back_later_is_decoded_again(world: World) -> None:
    (world.films / "a.mp4").rename(world.base / "a.mp4")
    world.index()
    (world.base / "a.mp4").rename(world.films / "a.mp4")
    world.index()
    assert world.decoded == ["a.mp4"]
    assert world.found("red") == {"films/a.mp4"}


def test_a_missing_root_is_offline_and_its_videos_are_found(world: World) -> None:
    world.films.rename(world.base / "unplugged")
    report = world.index()
    assert (report.num_offline, report.counts.forgotten) == (2, 0)
    assert world.found("red") == {"films/a.mp4"}
    (world.base / "unplugged").rename(world.films)
    assert world.index().counts.skipped == 2
    assert world.decoded == []


def test_an_empty_root_is_offline_and_its_videos_are_found(world: World) -> None:
    """Like a mount point while its disk is not plugged in."""
    world.films.rename(world.base / "unplugged")
    world.films.mkdir()
    assert world.index().num_offline == 2
    assert world.index(world.films / "a.mp4").num_offline == 1, "nor is one file of it deleted"
    assert world.found("red") == {"films/a.mp4"}


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_root_that_is_away_inside_another_root_is_offline(world: World, how: str) -> None:
    disk = world.base / "more" / "disk"
    write_film(disk / "c.mp4", [("green", 4)])
    world.index(disk)
    write_film(world.base / "more" / "d.mp4", [("white", 4)])
    world.index(world.base / "more")
    disk.rename(world.base / "unplugged")
    if how == "empty":
        disk.mkdir()
    report = world.index(world.base / "more")
    assert (report.num_offline, report.counts.forgotten) == (1, 0)
    assert "it is not there now" in report.problems[0].reason
    assert world.found("green") == {"more/disk/c.mp4"}


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_folder_of_a_root_that_is_there_is_deleted(world: World, how: str) -> None:
    shutil.rmtree(world.films / "sub")
    if how == "empty":
        (world.films / "sub").mkdir()
    assert world.index().counts.forgotten == 1
    assert world.found("blue") == set()


def test_roots_inside_each_other_hold_a_file_once(world: World) -> None:
    write_film(world.films / "sub" / "c.mp4", [("green", 4)])
    world.index(world.films / "sub", world.films)
    assert world.decoded == ["c.mp4"]
    (world.films / "sub" / "c.mp4").unlink()
    assert world.index(world.films / "sub").counts.forgotten == 1
    assert world.index().counts.skipped == 2


def test_a_file_that_is_a_root_of_its_own_is_deleted_with_the_folder_around_it(
    world: World,
) -> None:
    alone = write_film(world.base / "more" / "c.mp4", [("green", 4)])
    world.index(alone)
    (world.base / "more" / "keep").mkdir()
    world.index(world.base / "more")
    alone.unlink()
    assert world.index(alone).counts.forgotten == 1
    assert world.found("green") == set()


def test_an_unreadable_folder_keeps_its_videos(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: str) -> "os._ScandirIterator[str]":
        if Path(path) == world.films / "sub":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = world.index()
    assert report.num_offline == 1
    assert report.problems[0].reason == "unreadable: Permission denied"
    assert world.found("blue") == {"films/sub/b.mkv"}


def test_a_file_still_being_written_is_decoded_again_once_it_has_grown(world: World) -> None:
    whole = write_video(world.base / "whole.mkv", num_frames=300, fps=30).path
    growing = world.films / "growing.mkv"
    cut(whole, growing, 0.6)
    world.index()
    assert world.known()["films/growing.mkv"] == "partial"
    shutil.copy(whole, growing)
    world.index()
    assert world.decoded == ["growing.mkv"]
    assert world.known()["films/growing.mkv"] == "indexed"
    assert world.stored() == 3


def test_a_truncated_file_is_another_content(world: World) -> None:
    film = world.films / "a.mp4"  # its end has the table of all frames
    film.write_bytes(film.read_bytes()[:-800])
    report = world.index()
    assert world.decoded == ["a.mp4"]
    assert (report.counts.failed, world.found("red")) == (1, set())
    assert world.known()["films/a.mp4"] == "failed"
    assert world.stored() == 1


def test_a_file_that_is_sure_to_fail_again_waits_for_a_change_or_a_retry(world: World) -> None:
    write_garbage(world.films / "c.mp4")
    world.index()
    again = world.index()
    assert (again.problems, len(again.failed_before)) == ((), 1)
    assert world.decoded == []
    world.index(retry_failed=True)
    assert world.decoded == ["c.mp4"]
    write_film(world.films / "c.mp4", [("green", 4)])
    world.index()
    assert world.found("green") == {"films/c.mp4"}


def test_a_file_whose_decoder_crashed_is_tried_by_a_few_runs_then_only_by_a_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(world.films / "c.mp4", [("green", 4)])

    def crash(self: DecodePool, paths: list[Path]) -> Iterator[Failed]:
        for job in range(len(paths)):
            yield Failed(job, "the decoder crashed", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(DecodePool, "decode", crash)
        failed = [world.index().counts.failed for _ in range(SETTINGS.decode_attempts + 1)]
    assert failed == [1] * SETTINGS.decode_attempts + [0]
    world.index(retry_failed=True)
    assert world.decoded == ["c.mp4"]
    assert world.found("green") == {"films/c.mp4"}


def test_a_partial_video_is_scanned_again_by_a_retry_and_found_meanwhile(world: World) -> None:
    whole = write_video(world.base / "whole.mkv", num_frames=300, fps=30).path
    cut(whole, world.films / "cut.mkv", 0.6)
    world.index()
    world.index()
    assert world.decoded == [], "not by an ordinary run"
    before = {video.uid for video in read_videos(world.layout, states=["partial"])}
    world.index(retry_failed=True)
    assert world.decoded == ["cut.mkv"]
    after = {video.uid for video in read_videos(world.layout, states=["partial"])}
    assert after == {f"{uid}-2" for uid in before}, "scanned again, under a name of its own"
    assert world.stored() == 3


def test_a_large_file_that_is_filled_in_place_is_decoded_again(world: World) -> None:
    """As by programs that give a file its size before its content."""
    film = world.films / "noise.mp4"
    whole = write_noise(film).read_bytes()
    film.write_bytes(between_samples(whole))
    assert fast_hash(film) == fast_hash(write_noise(world.base / "whole.mp4"))
    world.index()
    assert world.known()["films/noise.mp4"] == "partial"
    film.write_bytes(whole)
    world.index()
    assert world.decoded == ["noise.mp4"]
    assert world.known()["films/noise.mp4"] == "indexed"
    assert world.stored() == 3


def test_a_large_file_that_is_changed_in_place_is_decoded_again(world: World) -> None:
    film = write_noise(world.films / "noise.mp4")
    world.index()
    os.utime(film, (1, 1))
    world.index()
    assert world.decoded == [], "its full hash shows that only its time is new"
    film.write_bytes(between_samples(film.read_bytes(), first=6, last=6))
    world.index()
    assert world.decoded == ["noise.mp4"]
    assert world.known()["films/noise.mp4"] == "partial"


def test_a_large_file_with_no_full_hash_on_record_is_decoded_again_after_a_new_time(
    world: World,
) -> None:
    film = write_noise(world.films / "noise.mp4")
    world.index()
    with Catalog.open(world.layout.catalog) as catalog, catalog.writing() as connection:
        connection.exec_driver_sql("UPDATE videos SET full_hash = NULL")
    os.utime(film, (1, 1))
    world.index()
    assert world.decoded == ["noise.mp4"]
    os.utime(film, (2, 2))
    world.index()
    assert world.decoded == [], "now it is on record"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_a_name_that_is_not_utf8_is_reported_and_found_once_renamed(world: World) -> None:
    film = write_film(world.base / "c.mp4", [("green", 4)])
    named = Path(os.fsdecode(os.fsencode(world.films) + b"/caf\xe9.mp4"))
    film.rename(named)
    report = world.index()
    assert world.decoded == []
    assert report.problems[0].reason == "the name is not valid UTF-8: rename it"
    named.rename(world.films / "café.mp4")
    world.index()
    assert world.found("green") == {"films/café.mp4"}


def test_files_that_swap_names_cost_no_decoding(world: World) -> None:
    a, b, other = world.films / "a.mp4", world.films / "sub" / "b.mkv", world.base / "other"
    a.rename(other)
    b.rename(a)
    other.rename(b)
    world.index()
    assert world.decoded == []
    assert (world.found("red"), world.found("blue")) == ({"films/sub/b.mkv"}, {"films/a.mp4"})


def test_a_file_that_is_left_out_is_forgotten(world: World) -> None:
    world.index(exclude=("sub",))
    assert (world.found("red"), world.found("blue")) == ({"films/a.mp4"}, set())
    assert world.stored() == 1
    world.index()
    assert world.decoded == ["b.mkv"]


def test_a_folder_with_a_nomedia_file_is_forgotten(world: World) -> None:
    (world.films / "sub" / ".nomedia").touch()
    assert world.index().counts.forgotten == 1
    assert world.found("blue") == set()


def test_a_path_that_was_never_known_and_is_not_there_is_an_error(world: World) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        world.index(world.base / "typo")


def test_every_test_that_the_document_names_exists() -> None:
    text = (ROOT / "docs/incremental.md").read_text()
    named = re.findall(r"`(test_\w+)(?:\.py)?(?:::(\w+))?`", text)
    assert len(named) > 25
    for first, second in named:
        module, name = (first, second) if second else ("test_incremental", first)
        source = (ROOT / "tests" / f"{module}.py").read_text()
        assert f"def {name}(" in source, f"{module}::{name}"


def test_every_test_here_is_named_in_the_document() -> None:
    text = (ROOT / "docs/incremental.md").read_text()
    tests = re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(), re.MULTILINE)
    missing = [name for name in tests if "document" not in name and name not in text]
    assert missing == []
