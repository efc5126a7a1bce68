"""Each difference between an index, its files and its own parts is reported once, and repaired if possible."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from scanonce.indexer.anchors import derive_anchors
from scanonce.indexer.repair import RepairReport, repair
from scanonce.indexer.verify import Verification, verify
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.soonet.trained import TrainedLocaliser, load_localiser
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.derived import published_rows
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import newest_generation
from scanonce.storage.vectors.publish import publish
from scanonce.storage.writer import writing
from tests.colours import ColourEncoder, write_film
from tests.indexes import (
    SETTINGS,
    STORAGE,
    build_index,
    open_engine,
    publish_all,
    random_localiser,
    read_videos,
    replace_index,
)
from tests.videos import between_samples, write_noise


@dataclass(frozen=True)
class Library:
    """A small index with a localiser, and its films, under the same path in each test."""

    root: Path

    @property
    def films(self) -> Path:
        return self.root / "films"

    @property
    def layout(self) -> IndexLayout:
        return IndexLayout.of(self.root / "index")

    @property
    def features(self) -> FeatureStore:
        return FeatureStore(self.layout.features)

    @property
    def thumbnails(self) -> ThumbnailStore:
        return ThumbnailStore(self.layout.thumbnails)

    @property
    def anchors(self) -> AnchorStore:
        return AnchorStore(self.layout.anchors / str(read_manifest(self.layout).anchors))

    def localiser(self) -> TrainedLocaliser:
        return load_localiser(str(self.root / "localiser"))

    def video(self, name: str = "b.mp4") -> Video:
        return next(each for each in read_videos(self.layout) if each.path.name == name)

    def index(self) -> None:
        build_index(self.layout, self.films, localiser=self.localiser())

    def verify(self, *, full: bool = False) -> Verification:
        return verify(self.layout, full=full, load_localiser=self.localiser)

    def repair(
        self, *, full: bool = False, load_encoder: Callable[[], ClipEncoder] = ColourEncoder
    ) -> RepairReport:
        return repair(
            self.layout,
            settings=SETTINGS,
            storage=STORAGE,
            load_encoder=load_encoder,
            load_localiser=self.localiser,
            full=full,
        )

    def published(self) -> dict[int, NDArray[np.float32]]:
        """Return the vectors in the vector index by video id."""
        generation = newest_generation(self.layout.vectors, dim=4)
        assert generation is not None
        return {
            video_id: read().astype(np.float32)
            for video_id, read in published_rows(generation).items()
        }

    def republish(self, rows: dict[int, NDArray[np.float32]]) -> None:
        """Replace the vector index by one with these vectors."""
        shutil.rmtree(self.layout.vectors)
        publish(self.layout.vectors, rows, rows.__getitem__, dim=4, settings=STORAGE)

    def execute(self, statement: str) -> None:
        """Change the catalogue behind its back."""
        with closing(sqlite3.connect(self.layout.catalog)) as connection, connection:
            connection.execute(statement)

    def answers(self) -> list[tuple[str, float, float]]:
        with open_engine(self.layout) as engine:
            return [
                (each.path.name, each.span.start_seconds, each.span.end_seconds)
                for text in ("red", "green", "blue", "white")
                for each in engine.search(text).moments
            ]

    def stamps(self) -> dict[Path, tuple[bytes, int]]:
        """Return the content and the modification time of every file."""
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index made once, under the path that tests use, because the catalogue has the paths of the films."""
    work = tmp_path_factory.mktemp("verify") / "work"
    library = Library(work)
    write_film(library.films / "a.mp4", [("red", 8), ("blue", 6)])
    write_film(library.films / "b.mp4", [("green", 9)])
    write_film(library.films / "c.mp4", [("white", 5), ("red", 5)])
    random_localiser(library.root / "localiser", 1, std=None)
    library.index()
    shutil.copytree(work, work.with_name("template"))
    return work.with_name("template")


@pytest.fixture
def library(template: Path) -> Library:
    work = template.with_name("work")
    shutil.rmtree(work)
    shutil.copytree(template, work)
    return Library(work)


def rewrite(store: ContentFiles, uid: str, **changed: NDArray[Any]) -> None:
    path = store.path(uid)
    save_file({**load_file(path), **changed}, path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def keep_time(path: Path, change: Callable[[], object]) -> None:
    stat = path.stat()
    change()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def named(found: Verification) -> list[tuple[str, Path, str]]:
    return [(each.kind, each.subject, each.remedy) for each in found.differences]


# ------------------------------------------------ no difference


@pytest.mark.parametrize("full", [False, True])
def test_a_healthy_index_has_no_difference(library: Library, full: bool) -> None:
    before = library.stamps()
    found = library.verify(full=full)
    assert found.differences == ()
    assert (found.videos, found.files, found.compared, found.pending) == (3, 3, 3, 0)
    assert found.without_thumbnails == 0
    assert changes(before, library.stamps()) == set(), "verify only reads"


def test_progress_counts_files_and_videos(library: Library) -> None:
    reports: list[tuple[int, int]] = []
    verify(library.layout, on_checked=lambda done, total: reports.append((done, total)))
    assert reports == [(done, 6) for done in range(1, 7)]


def test_there_must_be_an_index(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="there is no index"):
        verify(IndexLayout(tmp_path / "none"))


def test_videos_without_thumbnails_are_counted_only(library: Library) -> None:
    library.thumbnails.delete(library.video().uid)
    found = library.verify()
    assert (found.differences, found.without_thumbnails) == ((), 1)


def test_videos_that_come_and_go_during_verify_are_no_difference(library: Library) -> None:
    """A writer in another thread adds and deletes a film all the time."""
    spare = library.root / "spare.mp4"
    write_film(spare, [("black", 3)])
    stop = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        try:
            while not stop.is_set():
                with writing(library.layout, "coming and going"):
                    film = library.films / "d.mp4"
                    if film.exists():
                        film.unlink()
                    else:
                        shutil.copy(spare, film)
                    library.index()
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    videos = set()
    try:
        for number in range(200):
            found = library.verify(full=number % 2 == 0)
            assert found.differences == ()
            videos.add(found.videos)
            if number > 20 and len(videos) == 2:
                break
    finally:
        stop.set()
        writer.join()
    assert not errors
    assert videos == {3, 4}, "it was seen with and without the film that comes and goes"


# ------------------------------------------------ each difference is reported once


def broken_times(library: Library, uid: str) -> None:
    stored = library.features.read(uid)
    rewrite(library.features, uid, pts_seconds=stored.pts_seconds[::-1].copy())


def not_finite(library: Library, uid: str) -> None:
    frames = library.features.read(uid).frames
    frames[3, 1] = np.nan
    rewrite(library.features, uid, frames=frames)


def other_length(library: Library, uid: str) -> None:
    stored = library.features.read(uid)
    rewrite(library.features, uid, frames=stored.frames[1:], pts_seconds=stored.pts_seconds[1:])


def other_dim(library: Library, uid: str) -> None:
    rewrite(library.features, uid, frames=library.features.read(uid).frames[:, :3].copy())


def empty(library: Library, uid: str) -> None:
    rewrite(library.features, uid, frames=np.empty((0, 4), np.float16), pts_seconds=np.empty(0))


FEATURES: dict[str, tuple[Callable[[Library, str], object], str]] = {
    "cut off": (lambda library, uid: cut_off(library.features.path(uid)), "cannot be read"),
    "no file of ours": (
        lambda library, uid: library.features.path(uid).write_bytes(b"\xff" * 100),
        "cannot be read",
    ),
    "times": (broken_times, "do not rise"),
    "not finite": (not_finite, "not finite"),
    "length": (other_length, "hold 17 frames, the catalogue says 18"),
    "dim": (other_dim, "3 dimensions, the index has 4"),
    "empty": (empty, "no frame"),
}


@pytest.mark.parametrize("how", FEATURES)
def test_damaged_features_are_named_and_made_again(library: Library, how: str) -> None:
    video, before = library.video(), library.answers()
    FEATURES[how][0](library, video.uid)
    found = library.verify()
    assert named(found) == [("features damaged", video.path, "repair")]
    assert FEATURES[how][1] in found.differences[0].detail
    assert found.differences[0].video_id == video.video_id
    report = library.repair()
    assert (report.repaired, report.left) == (found.differences, ())
    assert library.verify(full=True).differences == ()
    assert library.answers() == before
    assert library.video().uid == f"{video.uid}-2"


def test_missing_features_are_named_and_made_again(library: Library) -> None:
    video = library.video()
    library.features.delete(video.uid)
    assert named(library.verify()) == [("features missing", video.path, "repair")]
    assert library.repair().left == ()
    assert library.verify(full=True).differences == ()


def test_features_whose_file_is_not_at_hand_are_left(library: Library) -> None:
    video = library.video()
    library.features.delete(video.uid)
    library.films.rename(library.films.with_name("unplugged"))
    found = library.verify()
    offline = [("file offline", library.films / f"{name}.mp4", "none") for name in "abc"]
    assert named(found) == [*offline, ("features missing", video.path, "restore")]
    before = library.stamps()
    report = library.repair()
    assert report.repaired == ()
    assert "plug its disk in" in report.left[-1][1]
    assert changes(before, library.stamps()) == set()


def test_damaged_thumbnails_are_named_and_made_again(library: Library) -> None:
    video = library.video()
    cut_off(library.thumbnails.path(video.uid))
    assert named(library.verify()) == [("thumbnails damaged", video.path, "repair")]
    assert library.repair().left == ()
    assert library.verify().without_thumbnails == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda tensors: {"ends": tensors["ends"] + 1}, "do not add up"),
        (lambda tensors: {"jpegs": tensors["jpegs"] * 0}, "no images"),
        (lambda tensors: {"pts_seconds": -tensors["pts_seconds"]}, "do not rise"),
        (lambda tensors: {"ends": tensors["ends"][1:].copy()}, "do not belong together"),
    ],
)
def test_thumbnails_that_cannot_be_read_are_damaged(
    library: Library,
    damage: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    reason: str,
) -> None:
    uid = library.video().uid
    rewrite(library.thumbnails, uid, **damage(load_file(library.thumbnails.path(uid))))
    for values in (False, True):
        assert reason in str(library.thumbnails.problem(uid, values=values))


@pytest.mark.parametrize("how", ["missing", "cut off", "too few", "not finite"])
def test_anchors_are_named_and_derived_again(library: Library, how: str) -> None:
    video, before = library.video(), library.stamps()
    stored = library.anchors.read(video.uid)
    if how == "missing":
        library.anchors.delete(video.uid)
    elif how == "cut off":
        cut_off(library.anchors.path(video.uid))
    elif how == "too few":
        rewrite(
            library.anchors, video.uid, vectors=stored.vectors[1:], norms=stored.norms[1:].copy()
        )
    else:
        rewrite(library.anchors, video.uid, norms=stored.norms * np.float32(np.inf))
    kind = "anchors missing" if how == "missing" else "anchors damaged"
    assert named(library.verify()) == [(kind, video.path, "repair")]
    report = library.repair(load_encoder=never)
    assert report.left == ()
    np.testing.assert_array_equal(library.anchors.read(video.uid).vectors, stored.vectors)
    assert changes(before, library.stamps()) == {library.anchors.path(video.uid)}
    assert library.verify(full=True).differences == ()


def never() -> ClipEncoder:
    raise AssertionError("nothing needs the encoder")


def changes(
    before: dict[Path, tuple[bytes, int]], after: dict[Path, tuple[bytes, int]]
) -> set[Path]:
    """Return the files that changed, came or went, without those of the writer's lock."""
    paths = {path for path in before.keys() | after if before.get(path) != after.get(path)}
    return {
        path
        for path in paths
        if path.name not in ("writer.lock", "catalog.sqlite-shm", "catalog.sqlite-wal")
    }


def test_another_localiser_under_the_same_name_is_reported(library: Library) -> None:
    shutil.rmtree(library.root / "localiser")
    random_localiser(library.root / "localiser", 9, std=None)
    assert [each.remedy for each in library.verify().differences] == ["localise"]
    shutil.rmtree(library.root / "localiser")
    (difference,) = library.verify().differences
    assert (difference.kind, difference.subject) == (
        "localiser",
        library.anchors.path("0").parents[1],
    )


# ------------------------------------------------ files


def test_files_that_are_gone_changed_or_replaced_are_named(library: Library) -> None:
    a, b, c = (library.films / f"{name}.mp4" for name in "abc")
    a.unlink()
    b.write_bytes(b.read_bytes() + b"more")

    def replace_inside() -> None:
        content = bytearray(c.read_bytes())
        content[len(content) // 2] ^= 0xFF
        c.write_bytes(content)

    keep_time(c, replace_inside)
    seen = [("file missing", a, "index"), ("file changed", b, "index")]
    assert named(library.verify()) == seen, "as large and as old as on record"
    assert named(library.verify(full=True)) == [*seen, ("file replaced", c, "repair")]


def test_a_file_that_is_left_out_now_is_named(library: Library) -> None:
    files = SETTINGS.model_copy(update={"exclude": ("b*",)})
    found = verify(library.layout, files=files)
    assert named(found) == [("file left out", library.films / "b.mp4", "index")]
    (library.films / ".nomedia").touch()
    assert {each.kind for each in library.verify().differences} == {"file left out"}
    library.index()
    assert library.verify().differences == ()


def test_a_file_replaced_in_place_is_scanned_by_repair(library: Library, tmp_path: Path) -> None:
    path = library.films / "b.mp4"
    other = write_film(tmp_path / "other.mp4", [("blue", 9)]).read_bytes()
    size = path.stat().st_size
    assert len(other) <= size + 500
    keep_time(path, lambda: path.write_bytes(other[:size].ljust(size, b"\0")))
    library.index()
    assert ("b.mp4", 0.0, 9.0) in library.answers()[:12]
    assert [each.kind for each in library.verify(full=True).differences] == ["file replaced"]
    report = library.repair(full=True)
    assert report.left == ()
    assert library.verify(full=True).differences == ()
    assert library.video().num_frames == 18
    assert library.features.read(library.video().uid).frames[0].argmax() == 2, "it is blue now"


def test_any_changed_byte_of_a_large_file_is_found_and_repaired(library: Library) -> None:
    path = write_noise(library.films / "noise.mp4")
    library.index()
    assert library.verify(full=True).differences == ()
    holed = between_samples(path.read_bytes(), first=6, last=6)
    keep_time(path, lambda: path.write_bytes(holed))
    library.index()
    assert named(library.verify()) == []
    assert named(library.verify(full=True)) == [("file replaced", path, "repair")]
    assert library.repair(full=True).left == ()
    assert library.video("noise.mp4").state == "partial", "what is there now"
    assert library.verify(full=True).differences == ()


def test_a_large_file_with_nothing_on_record_to_compare_it_with_is_counted(
    library: Library,
) -> None:
    write_noise(library.films / "noise.mp4")
    library.index()
    assert library.verify(full=True).sampled_only == 0
    with closing(sqlite3.connect(library.layout.catalog)) as database, database:
        database.execute("UPDATE videos SET full_hash = NULL")
    found = library.verify(full=True)
    assert (found.differences, found.sampled_only) == ((), 1)
    assert library.verify().sampled_only == 0


def test_a_copy_with_the_same_samples_is_distinguished_by_its_full_hash(library: Library) -> None:
    video = library.video()
    with Catalog.open(library.layout.catalog) as catalog:
        (record,) = catalog.files_under(video.path)
        catalog.attach_file(video.video_id, record.stamp, full_hash="0" * 40)
    assert named(library.verify()) == []
    assert named(library.verify(full=True)) == [("file replaced", video.path, "repair")]


# ------------------------------------------------ catalogue and manifest


def test_a_damaged_catalogue_is_named_and_not_guessed_at(library: Library) -> None:
    content = bytearray(library.layout.catalog.read_bytes())
    content[4096 : 4096 + 2000] = b"\x5a" * 2000
    library.layout.catalog.write_bytes(content)
    assert named(library.verify()) == [("catalogue", library.layout.catalog, "restore")]
    library.layout.catalog.write_bytes(b"no database" * 1000)
    assert named(library.verify()) == [("catalogue", library.layout.catalog, "restore")]
    library.layout.catalog.unlink()
    assert named(library.verify()) == [("catalogue", library.layout.catalog, "restore")]


def test_a_file_of_no_video_is_a_damaged_catalogue(library: Library) -> None:
    library.execute("UPDATE files SET video_id = 77 WHERE path LIKE '%b.mp4'")
    (difference, *_) = library.verify().differences
    assert (difference.kind, difference.remedy) == ("catalogue", "restore")
    assert "files refers to one of videos" in difference.detail


def test_a_damaged_manifest_is_named(library: Library) -> None:
    library.layout.manifest.write_text("{")
    assert named(library.verify()) == [("manifest", library.layout.manifest, "restore")]
    library.layout.manifest.unlink()
    assert named(library.verify()) == [("manifest", library.layout.manifest, "restore")]
    library.layout.manifest.write_text('{"schema_version": 99}')
    with pytest.raises(ManifestMismatch):
        library.verify()


def test_a_video_without_a_file_goes_with_the_next_run(library: Library) -> None:
    video = library.video()
    (library.films / "b.mp4").unlink()
    library.execute("DELETE FROM files WHERE path LIKE '%b.mp4'")
    with Catalog.open(library.layout.catalog) as catalog:
        catalog.lines.rebuild_words()  # those of the path, which nobody took out
    found = library.verify()
    assert [(each.kind, each.remedy, each.video_id) for each in found.differences] == [
        ("video without file", "index", video.video_id)
    ]
    library.index()
    assert library.verify(full=True).differences == ()


# ------------------------------------------------ vectors


def test_a_damaged_generation_is_named_and_made_again(library: Library) -> None:
    vectors = library.layout.vectors
    before, answers = library.stamps(), library.answers()
    for folder in vectors.iterdir():
        for path in folder.glob("*.f16"):
            cut_off(path)
    assert named(library.verify()) == [("vectors damaged", vectors, "repair")]
    report = library.repair(load_encoder=never)
    assert report.left == ()
    assert library.verify(full=True).differences == ()
    assert library.answers() == answers
    changed = changes(before, library.stamps())
    assert changed
    assert all(path.is_relative_to(vectors) for path in changed), "nothing else is touched"


def test_a_missing_vector_index_is_made_again(library: Library) -> None:
    shutil.rmtree(library.layout.vectors)
    found = library.verify()
    assert named(found) == [("vectors damaged", library.layout.vectors, "repair")]
    assert "missing" in found.differences[0].detail
    assert library.repair(load_encoder=never).left == ()


def test_vectors_that_are_not_those_of_the_features_are_made_again(library: Library) -> None:
    video, answers = library.video(), library.answers()
    vectors, rows = library.layout.vectors, library.published()
    rows[video.video_id][1] += 0.01
    library.republish(rows)
    before = library.stamps()
    found = library.verify()
    assert named(found) == [("vectors differ", video.path, "repair")]
    assert f"1 of its {len(rows[video.video_id])} vectors" in found.differences[0].detail
    report = library.repair(load_encoder=never)
    assert (report.repaired, report.left) == (found.differences, ())
    assert library.verify(full=True).differences == ()
    assert library.answers() == answers
    assert all(path.is_relative_to(vectors) for path in changes(before, library.stamps()))
    assert len(list(vectors.iterdir())) == 1, "the wrong ones are not kept to fall back to"


def test_a_rebuild_keeps_the_vectors_of_a_video_without_features(library: Library) -> None:
    """Its file and its features are missing: only its vectors remain."""
    a, b = library.video("a.mp4"), library.video("b.mp4")
    wrong = library.published()
    wrong[a.video_id][0] += 0.5
    library.republish(wrong)
    library.features.delete(b.uid)
    library.films.rename(library.films.with_name("unplugged"))
    report = library.repair()
    assert [each.kind for each in report.repaired] == ["vectors differ"]
    assert sorted(library.published()) == sorted(wrong)


def test_videos_that_were_never_published_are_named_and_added(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a run that was killed between its last commit and publishing."""
    write_film(library.films / "d.mp4", [("black", 4)])
    with monkeypatch.context() as patched:
        patched.setattr(Index, "publish", lambda *_: None)
        library.index()
    video = library.video("d.mp4")
    assert named(library.verify()) == [("vectors missing", video.path, "repair")]
    with writing(library.layout, "a test"):
        found = library.verify()
        assert (found.differences, found.pending) == ((), 1), "the writer will publish it"
    assert library.repair(load_encoder=never).left == ()
    assert library.verify().differences == ()


def test_vectors_of_videos_the_catalogue_never_had_are_named(library: Library) -> None:
    library.republish({number: np.full((3, 4), 0.5, np.float32) for number in (1, 2, 3, 77)})
    (difference,) = library.verify().differences
    assert (difference.kind, difference.remedy) == ("vectors damaged", "repair")
    assert "never had" in difference.detail
    assert library.repair(load_encoder=never).left == ()
    assert library.verify(full=True).differences == ()


def test_a_video_whose_features_are_lost_is_indexed_with_no_vectors(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches find all other videos; in earlier versions they could not open the library."""
    write_film(library.films / "d.mp4", [("black", 4)])
    write_film(library.films / "e.mp4", [("black", 5)])
    with monkeypatch.context() as patched:
        patched.setattr(Index, "publish", lambda *_: None)
        library.index()
    library.features.delete(library.video("e.mp4").uid)
    publish_all(library.layout, STORAGE)
    kinds = [(each.kind, each.subject.name) for each in library.verify().differences]
    assert kinds == [("features missing", "e.mp4")]
    assert {name for name, *_ in library.answers()} >= {"a.mp4", "d.mp4"}
    assert library.repair().left == ()


def test_values_are_compared_of_a_sample_unless_all_are_asked_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.indexer.verify._SAMPLE", 1)
    for name in "abc":
        not_finite(library, library.video(f"{name}.mp4").uid)
    found = library.verify()
    assert (len(found.differences), found.compared) == (1, 0)
    assert [each.subject for each in library.verify().differences] == [
        each.subject for each in found.differences
    ], "the same ones each time"
    assert len(library.verify(full=True).differences) == 3


# ------------------------------------------------ orphans


def test_orphans_are_reported_and_removed(library: Library) -> None:
    before = library.stamps()
    folder = library.features.path("ab" * 20).parent
    folder.mkdir(exist_ok=True)
    source = library.features.path(library.video().uid)
    orphans = [
        folder / f"{'ab' * 20}.safetensors",
        folder / ".tmp-half",
        library.thumbnails.path("cd" * 20),
    ]
    for path in orphans:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(source, path)
    staging = library.layout.vectors / "staging-dead"
    staging.mkdir()
    (staging / "part").write_bytes(b"0")
    with writing(library.layout, "a test"):
        found = library.verify()
        assert (found.differences, found.pending) == ((), 4)
    unfinished = library.layout.folder / ".tmp-manifest"
    unfinished.write_bytes(b"")
    found = library.verify()
    expected = {("orphan", path, "repair") for path in [*orphans, staging, unfinished]}
    assert (set(named(found)), len(found.differences)) == (expected, 5)
    report = library.repair(load_encoder=never)
    assert {each.subject for each in report.repaired} == {*orphans, staging}, (
        "the last went by locking"
    )
    assert report.left == ()
    assert changes(before, library.stamps()) == set()


# ------------------------------------------------ repair as a whole


def test_everything_at_once_is_repaired_and_whole_files_are_not_touched(library: Library) -> None:
    a, b = library.video("a.mp4"), library.video("b.mp4")
    answers = library.answers()
    cut_off(library.features.path(b.uid))
    cut_off(library.anchors.path(a.uid))
    shutil.rmtree(library.layout.vectors)
    leftover = library.features.path(b.uid).with_name(".tmp-left")
    leftover.write_bytes(b"")
    before = library.stamps()
    report = library.repair()
    assert len(report.repaired) == 4
    assert report.left == ()
    assert library.answers() == answers
    touched = changes(before, library.stamps()) & before.keys()
    may = {library.layout.catalog, leftover, library.anchors.path(a.uid)}
    may |= {store.path(b.uid) for store in (library.features, library.thumbnails, library.anchors)}
    vectors = library.layout.vectors
    assert {path for path in touched - may if vectors not in path.parents} == set()


def test_a_healthy_index_is_left_alone(library: Library) -> None:
    before = library.stamps()
    assert library.repair(load_encoder=never) == RepairReport((), ())
    assert changes(before, library.stamps()) == set()


def test_repair_says_why_a_video_could_not_be_decoded(library: Library) -> None:
    video = library.video()
    cut_off(library.features.path(video.uid))

    def missing() -> ClipEncoder:
        raise IndexDirectoryError("the encoder is gone")

    before = library.stamps()
    report = library.repair(load_encoder=missing)
    assert [(each.kind, why) for each, why in report.left] == [
        ("features damaged", "the encoder is gone")
    ]
    assert changes(before, library.stamps()) == set(), "the damaged file is not deleted either"


def test_repair_does_not_wait_for_another_writer(library: Library) -> None:
    errors: list[str] = []

    def other() -> None:
        try:
            library.repair()
        except IndexDirectoryError as error:
            errors.append(str(error))

    with writing(library.layout, "a test"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "is being written" in errors[0]


def test_an_index_that_was_replaced_meanwhile_is_verified_again(library: Library) -> None:
    old = library.layout

    def replace_once(*_: int) -> None:
        if library.layout == old:
            replace_index(old)

    found = verify(old, load_localiser=library.localiser, on_checked=replace_once)
    assert library.layout != old
    assert (found.differences, found.videos) == ((), 3)
    derive_anchors(library.layout, None)
    assert len(read_videos(library.layout, states=SEARCHABLE)) == 3
    assert library.verify().differences == ()
