"""`scanonce watch` with real films, real events and a real index."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

import scanonce.indexer.tracks
import scanonce.indexer.watch
import scanonce.library
import scanonce.ui.commands.watch
import scanonce.ui.jobs
from scanonce.indexer.models import LoadedModels
from scanonce.indexer.pipeline import IndexReport, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.tracks import TracksReport
from scanonce.indexer.watch import Settling
from scanonce.library import Library
from scanonce.media.workers import DecodePool
from scanonce.models.tracks.speech import SpokenLine
from scanonce.search.filters import Filter
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import RunCounts
from scanonce.storage.errors import (
    ConfigError,
    EncoderError,
    IndexDirectoryError,
    TrackError,
)
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.storage.writer import owner, writing
from scanonce.ui.commands.watch import watch
from tests.background import in_background, wait_for
from tests.colours import ColourEncoder, write_film
from tests.indexes import build_index
from tests.videos import write_garbage

ROOT = Path(__file__).parents[1]
SETTINGS = IndexerSettings(decode_workers=1, thumbnail_seconds=0.0)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    write_film(folder / "a.mp4", [("red", 4)])
    return folder


@pytest.fixture
def index_dir(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use colours instead of an encoder, and wait for fractions of a second only."""
    monkeypatch.setattr(scanonce.library, "load_models", lambda *_, **__: _colours())
    for name in ("_TICK_SECONDS", "_CHECK_SECONDS", "_BUSY_SECONDS", "_FIRST_PAUSE_SECONDS"):
        monkeypatch.setattr(scanonce.indexer.watch, name, 0.1)
    monkeypatch.setattr(scanonce.ui.commands.watch, "_BUSY_SECONDS", 0.1)
    monkeypatch.setattr(scanonce.indexer.watch, "_STEP_MILLISECONDS", 20)


def _colours() -> LoadedModels:
    return LoadedModels(ColourEncoder(), None)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the decoded files, in order."""
    names: list[str] = []
    real = DecodePool.decode

    def decode(self: DecodePool, paths: list[Path]) -> object:
        names.extend(path.name for path in paths)
        return real(self, paths)

    monkeypatch.setattr(DecodePool, "decode", decode)
    return names


def write_config(index_dir: Path, *, settle_seconds: float = 0.1) -> Path:
    """Write a configuration with `SETTINGS`."""
    path = index_dir.with_name("config.toml")
    path.write_text(
        f"[indexer]\ndecode_workers = {SETTINGS.decode_workers}\n"
        f"thumbnail_seconds = {SETTINGS.thumbnail_seconds}\n"
        f"[watch]\nsettle_seconds = {settle_seconds}\n"
        '[tracks]\ntext_model = "off"\n'
    )
    return path


@contextmanager
def watching(
    index_dir: Path,
    *roots: Path,
    settle_seconds: float = 0.5,
    tracks: str | None = None,
    command: str | None = None,
) -> Iterator[io.StringIO]:
    """Watch in a thread; yields the printed text."""
    stop = threading.Event()
    printed = io.StringIO()
    config = write_config(index_dir, settle_seconds=settle_seconds)
    run = partial(watch, list(roots), index_dir, tracks=tracks, command=command, config=config)
    with pytest.MonkeyPatch.context() as patch:
        until_stopped = partial(scanonce.indexer.watch.watch, stop=stop)
        patch.setattr(scanonce.indexer.watch, "watch", until_stopped)
        console = partial(Console, file=printed, width=400)
        patch.setattr(scanonce.ui.commands.watch, "new_console", console)
        with in_background(run, stop):
            yield printed


def known(index_dir: Path) -> set[str]:
    """Names of the searchable files."""
    layout = IndexLayout(index_dir)
    if not layout.catalog.exists():
        return set()
    with Catalog.open(layout.catalog) as catalog:
        return {path.name for video in catalog.videos() for path in video.paths}


def wait_until_known(index_dir: Path, *names: str, printed: io.StringIO) -> None:
    """Wait until exactly these files are searchable."""
    wait_for(lambda: known(index_dir) == set(names), state=printed.getvalue)


def wait_until_printed(text: str, printed: io.StringIO) -> None:
    wait_for(lambda: text in printed.getvalue(), state=printed.getvalue)


class SettlingClock:
    """The clock by which paths settle: it can be held, and moves on by hand then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead, self._held = 0.0, False
        self._seconds = 0.0
        self.num_looks = 0
        self.unsettled: set[Path] = set()
        add, ready = Settling.add, Settling.ready

        def look(settling: Settling, now: float) -> list[Path]:
            self.num_looks += 1
            found = ready(settling, self.now())
            self.unsettled = set(settling.unsettled)
            return found

        monkeypatch.setattr(Settling, "add", lambda it, paths, now: add(it, paths, self.now()))
        monkeypatch.setattr(Settling, "ready", look)

    def now(self) -> float:
        return self._seconds if self._held else time.monotonic() + self._ahead

    def hold(self) -> None:
        self._seconds, self._held = self.now(), True

    def move_on(self, seconds: float) -> None:
        """Let time pass once the watcher has looked at everything that was written so far."""
        looks = self.num_looks
        wait_for(lambda: self.num_looks >= looks + 2)
        self._seconds += seconds

    def release(self) -> None:
        self._ahead, self._held = self._seconds - time.monotonic(), False


def test_a_film_copied_in_slowly_is_decoded_once_and_whole(
    films: Path,
    index_dir: Path,
    tmp_path: Path,
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    film = write_film(tmp_path / "b.mkv", [("blue", 6), ("green", 6)]).read_bytes()
    clock = SettlingClock(monkeypatch)
    with watching(index_dir, films, settle_seconds=4.0) as printed:
        wait_until_known(index_dir, "a.mp4", printed=printed)
        clock.hold()
        with (films / "b.mkv").open("wb") as file:
            for start in range(0, len(film), len(film) // 24 + 1):
                file.write(film[start : start + len(film) // 24 + 1])
                file.flush()
                wait_for(lambda: films / "b.mkv" in clock.unsettled, state=printed.getvalue)
                clock.move_on(3.0)  # less than it takes to settle; 72 s together
        clock.release()
        wait_until_known(index_dir, "a.mp4", "b.mkv", printed=printed)
    assert decoded == ["a.mp4", "b.mkv"]
    with Catalog.open(IndexLayout(index_dir).catalog) as catalog:
        assert [video.state for video in catalog.videos()] == ["indexed", "indexed"]
        assert catalog.videos()[1].duration_seconds == pytest.approx(12, abs=0.2)
        assert [library.root for library in catalog.libraries()] == [films]
        assert {run.outcome for run in catalog.runs.last()} == {"done"}


def test_renaming_moving_and_copying_cost_no_decoding_and_a_deletion_is_followed(
    films: Path, index_dir: Path, decoded: list[str]
) -> None:
    write_film(films / "sub" / "b.mp4", [("blue", 4)])
    with watching(index_dir, films) as printed:
        wait_until_known(index_dir, "a.mp4", "b.mp4", printed=printed)
        (films / "a.mp4").rename(films / "sub" / "moved.mp4")
        wait_until_known(index_dir, "moved.mp4", "b.mp4", printed=printed)
        (films / "sub").rename(films / "renamed")
        shutil.copy(films / "renamed" / "b.mp4", films / "copy.mp4")
        wait_until_known(index_dir, "moved.mp4", "b.mp4", "copy.mp4", printed=printed)
        (films / "renamed" / "b.mp4").unlink()
        wait_until_known(index_dir, "moved.mp4", "copy.mp4", printed=printed)
    assert sorted(decoded) == ["a.mp4", "b.mp4"]
    with Catalog.open(IndexLayout(index_dir).catalog) as catalog:
        paths = {path for video in catalog.videos() for path in video.paths}
    assert paths == {films / "renamed" / "moved.mp4", films / "copy.mp4"}


def test_a_restart_picks_up_what_happened_meanwhile(
    films: Path, index_dir: Path, decoded: list[str]
) -> None:
    with watching(index_dir, films) as printed:
        wait_until_known(index_dir, "a.mp4", printed=printed)
    (films / "a.mp4").rename(films / "renamed.mp4")
    write_film(films / "b.mp4", [("blue", 4)])
    with watching(index_dir) as printed:  # no paths: all that the index knows
        wait_until_known(index_dir, "renamed.mp4", "b.mp4", printed=printed)
    assert decoded == ["a.mp4", "b.mp4"]
    assert "1 video indexed (0:00:04), 1 already indexed" in printed.getvalue()


def test_a_root_that_is_unplugged_keeps_its_videos(
    films: Path, index_dir: Path, tmp_path: Path, decoded: list[str]
) -> None:
    with watching(index_dir, films) as printed:
        wait_until_known(index_dir, "a.mp4", printed=printed)
        films.rename(tmp_path / "unplugged")
        wait_until_printed("is not there now", printed)
        write_film(tmp_path / "unplugged" / "b.mp4", [("blue", 4)])
        (tmp_path / "unplugged").rename(films)
        wait_until_known(index_dir, "a.mp4", "b.mp4", printed=printed)
    assert decoded == ["a.mp4", "b.mp4"]


def test_a_disk_inside_a_library_that_comes_and_goes_is_followed(
    films: Path, index_dir: Path, tmp_path: Path, decoded: list[str]
) -> None:
    disk = films / "disk"
    write_film(disk / "b.mp4", [("blue", 4)])
    with watching(index_dir, disk) as printed:
        wait_until_known(index_dir, "b.mp4", printed=printed)
    with watching(index_dir, films) as printed:
        wait_until_known(index_dir, "a.mp4", "b.mp4", printed=printed)
        disk.rename(tmp_path / "unplugged")
        wait_until_printed(f"{disk} is not there now", printed)
        write_film(tmp_path / "unplugged" / "c.mp4", [("green", 4)])
        (tmp_path / "unplugged").rename(disk)
        wait_until_known(index_dir, "a.mp4", "b.mp4", "c.mp4", printed=printed)
    assert decoded == ["b.mp4", "a.mp4", "c.mp4"]
    assert printed.getvalue().count("is not there now") == 1


def test_another_writer_is_waited_for(films: Path, index_dir: Path) -> None:
    layout = IndexLayout(index_dir)
    with writing(layout, "scanonce forget"), watching(index_dir, films) as printed:
        wait_until_printed("is being written by scanonce forget", printed)
        assert known(index_dir) == set()
        # the lock is this thread's, and the watcher is waited for below
        threading.Event().wait(0.3)
        assert printed.getvalue().count("is being written") == 1


def test_runs_are_shown_by_the_library_page_with_the_folders_watched(
    films: Path, index_dir: Path
) -> None:
    with watching(index_dir, films) as printed:
        wait_until_known(index_dir, "a.mp4", printed=printed)
        wait_until_printed("1 video indexed", printed)
        job = scanonce.ui.jobs.read(index_dir)
    assert job is not None
    assert (job.state, job.paths, job.pid) == ("done", (films,), os.getpid())
    assert job.counts is not None
    assert job.counts.indexed == 1


def test_a_path_that_would_not_be_indexed_is_not_watched(films: Path, index_dir: Path) -> None:
    (notes := films.parent / "notes.txt").touch()
    (hidden := films.parent / "hidden").mkdir()
    (hidden / ".nomedia").touch()
    index_dir.mkdir()
    for path, why in ((notes, "not a video"), (hidden, "left out"), (index_dir, "is an index")):
        with pytest.raises(ConfigError, match=why):
            watch([path], index_dir=index_dir)


def test_a_folder_that_gets_a_nomedia_file_leaves_the_index(films: Path, index_dir: Path) -> None:
    (films / "sub").mkdir()
    write_film(films / "sub" / "c.mp4", [("green", 3)])
    with watching(index_dir, films) as printed:
        wait_until_printed("indexed", printed)
        (films / "sub" / ".nomedia").touch()
        wait_until_printed("1 no longer there", printed)


def test_broken_files_are_reported_and_watching_goes_on(films: Path, index_dir: Path) -> None:
    write_garbage(films / "garbage.mp4")
    with watching(index_dir, films) as printed:
        wait_until_printed("1 failed", printed)
        write_film(films / "b.mp4", [("blue", 4)])
        wait_for(lambda: "b.mp4" in known(index_dir), state=printed.getvalue)
    assert str(films / "garbage.mp4") in printed.getvalue()


def test_models_are_loaded_once_and_again_if_the_index_gets_others(
    films: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def load(*_: object, **__: object) -> LoadedModels:
        loaded.append(1)
        return _colours()

    monkeypatch.setattr(scanonce.library, "load_models", load)
    with watching(index_dir, films) as printed:
        wait_for(lambda: printed.getvalue().count("1 video indexed") == 1, state=printed.getvalue)
        write_film(films / "b.mp4", [("blue", 4)])
        wait_for(lambda: printed.getvalue().count("1 video indexed") == 2, state=printed.getvalue)
        assert len(loaded) == 1
        manifest = IndexLayout(index_dir).manifest
        manifest.write_text(manifest.read_text().replace('"colours"', '"colours-too"'))
        write_film(films / "c.mp4", [("green", 4)])
        wait_for(lambda: printed.getvalue().count("1 video indexed") == 3, state=printed.getvalue)
    assert len(loaded) == 2


def test_an_error_that_would_stop_every_run_is_raised_at_once(
    films: Path, index_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(index_dir)
    with pytest.raises(ConfigError, match="does not exist"):
        watch([tmp_path / "typo"], index_dir, config=config)
    with pytest.raises(IndexDirectoryError, match="no index"):
        watch([], index_dir, config=config)
    index_library(
        [films],
        layout=IndexLayout(index_dir),
        encoder=ColourEncoder(),
        settings=SETTINGS,
        storage=StorageSettings(),
    )

    def no_encoder(*_: object, **__: object) -> LoadedModels:
        raise EncoderError("no such encoder")

    monkeypatch.setattr(scanonce.library, "load_models", no_encoder)
    with pytest.raises(EncoderError):
        watch([films], index_dir, config=config)


@pytest.mark.parametrize("made_with", [{"sampling": "keyframes"}, {"sample_fps": 1.0}])
def test_an_index_keeps_its_own_sampling(
    films: Path, index_dir: Path, made_with: dict[str, object]
) -> None:
    index_library(
        [films],
        layout=IndexLayout(index_dir),
        encoder=ColourEncoder(),
        settings=SETTINGS.model_copy(update=made_with),
        storage=StorageSettings(),
    )
    write_film(films / "b.mp4", [("blue", 4)])
    with watching(index_dir, films) as printed:
        wait_until_known(index_dir, "a.mp4", "b.mp4", printed=printed)


def test_a_match_in_a_new_video_runs_a_command(
    films: Path, index_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())
    build_index(IndexLayout(index_dir), films)
    saved = Library(index_dir).saved
    for name, query in (("reds", "red"), ("blues", "blue"), ("elsewhere", "blue")):
        only = Filter(folders=(films,), min_seconds=9.0) if name == "elsewhere" else None
        saved.add(name, query, only)
    out = tmp_path / "told.jsonl"
    script = tmp_path / "tell.py"
    script.write_text(
        "import sys\nwith open(sys.argv[1], 'a') as out:\n    out.write(sys.stdin.read() + '\\n')\n"
    )
    command = shlex.join([sys.executable, str(script), str(out)])
    with watching(index_dir, films, settle_seconds=0.1, command=command) as printed:
        wait_until_printed("watching", printed)
        write_film(films / "b.mp4", [("blue", 4)])
        wait_for(out.exists, state=printed.getvalue)
        wait_until_printed("blues: 1 new match", printed)
    (told,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (told["event"], told["name"]) == ("saved_search_matched", "blues")
    assert [Path(moment["path"]).name for moment in told["moments"]] == ["b.mp4"]
    assert "reds:" not in printed.getvalue(), "a.mp4 was there before"
    assert saved.get("blues").looked_at is None, "nobody has looked at it"


def test_the_pause_button_ends_it(
    films: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paused(*_: object, **__: object) -> IndexReport:
        return IndexReport(RunCounts(), (), interrupted=True)

    monkeypatch.setattr(scanonce.library, "index_library", paused)
    watch([films], index_dir, config=write_config(index_dir))
    job = scanonce.ui.jobs.read(index_dir)
    assert job is not None
    assert job.resumable


SERVICE = """
import sys
from pathlib import Path
import scanonce.library
from scanonce.ui.commands.watch import watch
from tests.colours import ColourEncoder
from scanonce.indexer.models import LoadedModels
scanonce.library.load_models = lambda *_, **__: LoadedModels(ColourEncoder(), None)
films, index, config = map(Path, sys.argv[1:])
watch([films], index, config=config)
"""


def test_a_service_manager_ends_it_cleanly(films: Path, index_dir: Path) -> None:
    """The signal arrives while it waits; in the middle of a run, the pipeline keeps the finished videos."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, films, index_dir, write_config(index_dir)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "1 video indexed" not in (line := process.stdout.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=600)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "Finished videos are kept" in printed
    assert not (index_dir / "writer.json").exists(), "no writer died there"


# ---------------------------------------------------------------- tracks


def subtitles(index_dir: Path) -> list[str]:
    """The texts of all subtitles of the index."""
    layout = IndexLayout(index_dir)
    if not layout.catalog.exists():
        return []
    with Catalog.open(layout.catalog) as catalog:
        ids = [video.video_id for video in catalog.videos()]
        return [line.text for each in ids for line in catalog.lines.of(each, ["subtitle"])]


def write_subtitle(film: Path, text: str) -> None:
    film.with_suffix(".srt").write_text(f"1\n00:00:00,500 --> 00:00:02,000\n{text}\n")


def test_tracks_of_new_videos_are_read_after_their_images(films: Path, index_dir: Path) -> None:
    write_subtitle(films / "a.mp4", "good morning")
    with watching(index_dir, films, tracks="subtitle") as printed:
        wait_for(lambda: subtitles(index_dir) == ["good morning"], state=printed.getvalue)
        write_subtitle(films / "b.mp4", "good night")
        write_film(films / "b.mp4", [("blue", 4)])
        wait_for(
            lambda: subtitles(index_dir) == ["good morning", "good night"], state=printed.getvalue
        )
        wait_until_printed("subtitle: 1 video read · 1 line", printed)
    assert known(index_dir) == {"a.mp4", "b.mp4"}
    assert not (index_dir / "writer.json").exists()


class HeldSpeech:
    """A speech model that hears each video until it is let go on."""

    name = "held"

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.num_begun = 0

    def transcribe(
        self, audio: object, on_progress: Callable[[float], object]
    ) -> Iterator[SpokenLine]:
        self.num_begun += 1
        self.begun.set()
        while not self.may_go_on.wait(0.05):
            on_progress(1.0)
        yield SpokenLine(0.0, 1.0, "we met on Discord", 0.9, "en")


@pytest.fixture
def held_speech(monkeypatch: pytest.MonkeyPatch) -> HeldSpeech:
    speech = HeldSpeech()
    monkeypatch.setattr(scanonce.indexer.tracks, "load_speech_model", lambda *_: speech)
    return speech


def test_images_of_new_videos_do_not_wait_for_speech_that_is_being_read(
    films: Path, index_dir: Path, held_speech: HeldSpeech
) -> None:
    with watching(index_dir, films, tracks="said") as printed:
        wait_for(held_speech.begun.is_set, state=printed.getvalue)
        write_film(films / "b.mp4", [("blue", 4)])
        wait_until_known(index_dir, "a.mp4", "b.mp4", printed=printed)
        assert held_speech.num_begun == 1, "the first video is still being heard"
        held_speech.may_go_on.set()
        wait_until_printed("said: 1 video read · 1 line", printed)
        wait_for(lambda: printed.getvalue().count("said: 1 video read") == 2)


def test_watching_ends_while_speech_is_being_read_and_reads_it_the_next_time(
    films: Path, index_dir: Path, held_speech: HeldSpeech
) -> None:
    with watching(index_dir, films, tracks="said") as printed:
        wait_for(held_speech.begun.is_set, state=printed.getvalue)
    assert "video read" not in printed.getvalue()
    held_speech.may_go_on.set()
    with watching(index_dir, films, tracks="said") as printed:
        wait_until_printed("said: 1 video read · 1 line", printed)


def test_a_track_waits_for_another_writer_before_it_is_stored(
    films: Path, index_dir: Path, held_speech: HeldSpeech
) -> None:
    with watching(index_dir, films, tracks="said") as printed:
        wait_for(held_speech.begun.is_set, state=printed.getvalue)
        wait_for(lambda: owner(IndexLayout(index_dir)) is None, state=printed.getvalue)
        with writing(IndexLayout(index_dir), "scanonce index"):
            held_speech.may_go_on.set()
            time.sleep(0.3)  # enough to store it, if it did not wait
            assert "video read" not in printed.getvalue()
        wait_until_printed("said: 1 video read · 1 line", printed)


def test_a_track_without_its_packages_is_refused_at_once(
    films: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TrackError("speech is read by faster-whisper, which is not installed")

    monkeypatch.setattr(scanonce.indexer.tracks, "load_speech_model", fail)
    with pytest.raises(TrackError, match="faster-whisper"):
        watch([films], index_dir, tracks="said", config=write_config(index_dir))


def test_an_error_of_the_tracks_is_printed_once_and_they_are_tried_again(
    films: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    real = scanonce.indexer.tracks.make_tracks

    def fail_twice(*args: object, **options: object) -> TracksReport:
        tries.append("")
        if len(tries) <= 2:
            raise IndexDirectoryError("the disk is full")
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scanonce.library, "make_tracks", fail_twice)
    write_subtitle(films / "a.mp4", "good morning")
    with watching(index_dir, films, tracks="subtitle") as printed:
        for number, colour in enumerate(("blue", "green"), start=1):
            wait_for(lambda number=number: len(tries) >= number, state=printed.getvalue)  # type: ignore[misc]
            write_film(films / f"{colour}.mp4", [(colour, 4)])
        wait_for(lambda: subtitles(index_dir) == ["good morning"], state=printed.getvalue)
    assert printed.getvalue().count("the disk is full") == 1
