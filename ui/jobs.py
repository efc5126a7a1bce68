"""Indexing as a process of its own: closing a page or restarting the server does not lose it.

    start(index_dir, [Path("/films")])       # returns at once
    read(index_dir).state                    # "running", at last "done"
    pause(index_dir); resume(index_dir)      # what is indexed by then is kept

Every `scanonce index`, also one from a terminal, writes how far it is into the index directory (:func:`recorded`):

    run.json    the run that goes on, or the last one
    run.pause   which process was asked to pause
    run.log     what a run without a terminal printed
    run.lock    held for the moment in which a run begins, so that a second click does not begin another

A process is known by its number and the time it began, since numbers are used again. Linux and macOS.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scanonce.storage.catalog.entries import RunCounts
from scanonce.storage.errors import ConfigError, IndexDirectoryError, ScanonceError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.writer import refuse_while_written, writing

if TYPE_CHECKING:  # it imports torch, which the pages' process need not
    from scanonce.indexer.pipeline import IndexReport, Progress

if sys.platform != "win32":
    import fcntl

JobState = Literal["running", "pausing", "paused", "done", "failed", "stopped", "died"]
"""``paused``: by :func:`pause`; ``stopped``: by Ctrl-C; ``died``: its process is gone without a word."""

_RUN, _PAUSE, _LOG, _LOCK = "run.json", "run.pause", "run.log", "run.lock"
_DETACHED = "SCANONCE_DETACHED"  # environment: this run has no terminal
_TELL_SECONDS = 0.5  # between two writings of run.json
_RATE_SECONDS = 30.0  # rates are those of the last so many seconds
_TAIL_LINES, _TAIL_BYTES = 12, 8_000
_TOLD = "scanonce: "  # how `ui.cli.main` begins an error
_NICENESS = 5  # searches go first

_KILLED = (
    "The run ended without finishing: it was killed, ran out of memory, or the machine went down. What was indexed is "
    "kept: resume goes on from there."
)
_BROKEN = "This should not happen: please report it with the log. What was indexed is kept."


@dataclass(frozen=True, slots=True)
class Job:
    """A run of the indexer: how far it is, or how it ended."""

    pid: int
    pid_started: str
    """When the process began, as the system tells it."""
    paths: tuple[Path, ...]
    state: JobState
    started_at: datetime
    """UTC."""
    updated_at: datetime
    """UTC; when it was heard of last."""
    retry: bool = False
    """It also decodes again what failed before."""
    encoder: str | None = None
    """The one it was given; None: that of the index or the configuration."""
    has_log: bool = False
    """It writes ``run.log``."""
    doing: str = "starting"
    """For people, before there is progress to be shown."""
    videos_done: int = 0
    videos_total: int | None = None
    """None: not known yet."""
    bytes_done: float = 0.0
    bytes_total: int = 0
    video_seconds: float = 0.0
    """Decoded and encoded so far."""
    rate: float | None = None
    """Seconds of video per second, lately."""
    seconds_left: float | None = None
    current: Path | None = None
    counts: RunCounts | None = None
    """What it did, once it has ended."""
    num_offline: int = 0
    """Known files that it could not see; they are kept."""
    error: str | None = None
    """Why it failed or died, with the next step."""
    log_tail: tuple[str, ...] = ()
    """Last lines of its log where it failed or died."""

    @property
    def alive(self) -> bool:
        """Its process is at work."""
        return self.state in ("running", "pausing")

    @property
    def resumable(self) -> bool:
        """It ended before its end."""
        return self.state in ("paused", "stopped", "died")

    @property
    def share(self) -> float:
        """Of its bytes that are done, 0 to 1."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else 0.0


# ---------------------------------------------------------------- for the pages


def start(
    index_dir: Path,
    paths: Sequence[Path],
    *,
    config: Path | None = None,
    encoder: str | None = None,
    retry: bool = False,
) -> Job:
    """Starts `scanonce index` in a process that outlives this one; returns at once.

    Args:
        index_dir: the index directory; made where it does not exist.
        paths: folders, or single video files.
        config: configuration file. Default: as for the command line.
        encoder: of a new index. Default: that of the configuration.
        retry: also decode again what failed before.

    Raises:
        IndexDirectoryError: a run goes on there already, or nothing can be written there.
        ConfigError: no paths.
    """
    if not paths:
        raise ConfigError("there is no folder to index: add one first.")
    roots = tuple(Path(os.path.abspath(path)) for path in paths)
    command = [
        sys.executable,
        "-m",
        "scanonce.ui.cli",
        "index",
        *map(str, roots),
        "--index",
        str(index_dir),
    ]
    if config is not None:
        command += ["--config", os.path.abspath(config)]
    if encoder is not None:
        command += ["--encoder", encoder]
    if _sampling(index_dir) == "keyframes":
        command.append("--keyframes")
    if retry:
        command.append("--retry")
    with _beginning(index_dir):
        with (index_dir / _LOG).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, _DETACHED: "1", "PYTHONUNBUFFERED": "1"},
            )
        now = datetime.now(UTC)
        job = Job(
            pid=process.pid,
            pid_started=_process_started(process.pid) or "",
            paths=roots,
            state="running",
            started_at=now,
            updated_at=now,
            retry=retry,
            encoder=encoder,
            has_log=True,
        )
        _write(index_dir, job)
    # somebody has to wait for a child, or it stays as a zombie
    threading.Thread(target=process.wait, name="index run", daemon=True).start()
    return job


def read(index_dir: Path) -> Job | None:
    """The run that goes on, or the last one; None where there was none."""
    job = _read(index_dir)
    if job is None:
        return None
    if job.state == "running" and not _is_alive(job):
        job = _read(index_dir) or job  # it may have ended between the two looks
        if job.state == "running":
            if _asked_to_pause(index_dir, job):
                return replace(job, state="paused")
            return _post_mortem(index_dir, job)
    if job.state == "running" and _asked_to_pause(index_dir, job):
        return replace(job, state="pausing")
    if job.state == "failed" and job.has_log:
        return replace(job, log_tail=_log_tail(index_dir / _LOG))
    return job


def pause(index_dir: Path) -> Job:
    """Asks the run to stop cleanly; it keeps what it has, and :func:`resume` goes on from there.

    Raises:
        IndexDirectoryError: no run goes on there.
    """
    job = read(index_dir)
    if job is None or not job.alive:
        raise IndexDirectoryError(
            f"no run is at work on the index {index_dir}: there is nothing to pause."
        )
    if job.state == "running":  # a second interrupt would cut its ending short
        _write_json(index_dir / _PAUSE, {"pid": job.pid, "pid_started": job.pid_started})
        with contextlib.suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGINT)
    return replace(job, state="pausing")


def resume(index_dir: Path, *, config: Path | None = None) -> Job:
    """Starts the last run anew, with the same paths: what it has done is not done again.

    Raises:
        IndexDirectoryError: a run goes on there already, or there was none.
    """
    job = _read(index_dir)
    if job is None:
        raise IndexDirectoryError(f"no run was made on the index {index_dir}: start one.")
    return start(index_dir, job.paths, config=config, encoder=job.encoder, retry=job.retry)


# ---------------------------------------------------------------- for the run itself


class Recorder:
    """Writes how far a run is, twice a second at most."""

    def __init__(self, index_dir: Path, job: Job) -> None:
        """`recorded` makes it."""
        self._index_dir = index_dir
        self._job = job
        self._told_at = 0.0
        self._heard: deque[tuple[float, float, float]] = deque()

    def say(self, doing: str) -> None:
        """Tells what is done before videos are."""
        self._job = replace(self._job, doing=doing)
        self._tell()

    def observe(self, progress: "Progress") -> None:
        """The observer of `index_library`.

        Raises:
            KeyboardInterrupt: somebody has asked the run to pause, and its signal was lost.
        """
        now = time.monotonic()
        rate, left = self._rates(now, progress)
        self._job = replace(
            self._job,
            doing="indexing",
            videos_done=progress.videos_done,
            videos_total=progress.videos_total,
            bytes_done=progress.bytes_done,
            bytes_total=progress.bytes_total,
            video_seconds=progress.video_seconds,
            rate=rate,
            seconds_left=left,
            current=progress.current,
        )
        if now - self._told_at >= _TELL_SECONDS:
            self._tell()

    def finish(self, report: "IndexReport") -> None:
        """Notes what the run did."""
        self._job = replace(self._job, counts=report.counts, num_offline=report.num_offline)
        if report.interrupted:
            self._end(self._interrupted())
        else:
            self._end("done")

    def _rates(self, now: float, progress: "Progress") -> tuple[float | None, float | None]:
        """Seconds of video per second, and seconds left."""
        self._heard.append((now, progress.video_seconds, progress.bytes_done))
        while now - self._heard[0][0] > _RATE_SECONDS and len(self._heard) > 2:
            self._heard.popleft()
        then, seconds, num_bytes = self._heard[0]
        if now - then < 1.0:
            return None, None
        bytes_rate = (progress.bytes_done - num_bytes) / (now - then)
        left = progress.bytes_total - progress.bytes_done
        return (
            (progress.video_seconds - seconds) / (now - then),
            left / bytes_rate if bytes_rate > 0 else None,
        )

    def _interrupted(self) -> JobState:
        return "paused" if _asked_to_pause(self._index_dir, self._job) else "stopped"

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        self._save()
        if _asked_to_pause(self._index_dir, self._job):
            raise KeyboardInterrupt

    def _end(self, state: JobState, error: str | None = None) -> None:
        self._job = replace(
            self._job, state=state, error=error, current=None, seconds_left=None, rate=None
        )
        self._save()

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # a full disk is the run's to tell, not this file's
            _write(self._index_dir, replace(self._job, updated_at=datetime.now(UTC)))


@contextmanager
def recorded(
    index_dir: Path,
    paths: Sequence[Path],
    *,
    encoder: str | None = None,
    retry: bool = False,
    doing: str = "scanonce index",
) -> Iterator[Recorder]:
    """Around a run of the indexer: how far it is and how it ends can be read by others.

    Raises:
        IndexDirectoryError: another run goes on there, or nothing can be written there.
    """
    detached = os.environ.pop(_DETACHED, None) is not None
    if detached:
        # a server that was started in the background hands on that interrupts are to be ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.nice(_NICENESS)
    with writing(IndexLayout.of(index_dir), doing):
        yield from _recorded(index_dir, paths, encoder, retry, detached)


def _recorded(
    index_dir: Path, paths: Sequence[Path], encoder: str | None, retry: bool, detached: bool
) -> Iterator[Recorder]:
    with _beginning(index_dir, mine=os.getpid()):
        now = datetime.now(UTC)
        job = Job(
            pid=os.getpid(),
            pid_started=_process_started(os.getpid()) or "",
            paths=tuple(Path(os.path.abspath(path)) for path in paths),
            state="running",
            started_at=now,
            updated_at=now,
            retry=retry,
            encoder=encoder,
            has_log=detached,
        )
        _write(index_dir, job)
    recorder = Recorder(index_dir, job)
    try:
        yield recorder
    except KeyboardInterrupt:
        recorder._end(recorder._interrupted())
        raise
    except ScanonceError as error:
        recorder._end("failed", str(error))
        raise
    except BaseException as error:
        recorder._end("failed", f"{type(error).__name__}: {error}. {_BROKEN}")
        raise


# ---------------------------------------------------------------- files


@contextmanager
def _beginning(index_dir: Path, *, mine: int | None = None) -> Iterator[None]:
    """The one place where a run begins: only if no other than process ``mine`` goes on, and one at a time."""
    with _mapped_errors(index_dir):
        index_dir.mkdir(parents=True, exist_ok=True)
        with (index_dir / _LOCK).open("a") as lock:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)  # freed when the file is closed
            other = read(index_dir)
            if other is not None and other.alive and other.pid != mine:
                since = other.started_at.astimezone().strftime("%H:%M")
                raise IndexDirectoryError(
                    f"the index {index_dir} is being written by another run (process {other.pid}, since {since}): "
                    "wait until it has ended, or pause it on the library page."
                )
            if mine is None:
                refuse_while_written(IndexLayout.of(index_dir))
            if other is None or other.pid != mine:
                (index_dir / _PAUSE).unlink(missing_ok=True)
            yield


@contextmanager
def _mapped_errors(index_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IndexDirectoryError(
            f"a run cannot be started on the index {index_dir} ({error.strerror or error}). Make room or check the "
            "folder's permissions, then try again."
        ) from error


def _sampling(index_dir: Path) -> str | None:
    """That of an existing index, which a run has to keep to."""
    layout = IndexLayout.of(index_dir)
    return read_manifest(layout).sampling if layout.manifest.exists() else None


def _write(index_dir: Path, job: Job) -> None:
    values = asdict(replace(job, log_tail=()))
    values["paths"] = [str(path) for path in job.paths]
    values["current"] = str(job.current) if job.current else None
    for name in ("started_at", "updated_at"):
        values[name] = values[name].timestamp()
    _write_json(index_dir / _RUN, values)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Whole or not at all; not synced: after a power cut the run is dead, whatever the file says."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".tmp-", delete=False) as file:
        temporary = Path(file.name)
        try:
            json.dump(values, file)
            file.flush()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _read(index_dir: Path) -> Job | None:
    """What the run wrote last; None where there is nothing that makes sense."""
    try:
        values = json.loads((index_dir / _RUN).read_text("utf-8"))
        values["paths"] = tuple(Path(path) for path in values["paths"])
        values["current"] = Path(values["current"]) if values["current"] else None
        values["counts"] = RunCounts(**values["counts"]) if values["counts"] else None
        values["log_tail"] = ()
        for name in ("started_at", "updated_at"):
            values[name] = datetime.fromtimestamp(values[name], UTC)
        return Job(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _asked_to_pause(index_dir: Path, job: Job) -> bool:
    try:
        asked = json.loads((index_dir / _PAUSE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(asked == {"pid": job.pid, "pid_started": job.pid_started})


def _post_mortem(index_dir: Path, job: Job) -> Job:
    """What became of a run that ended without a word: it may have said one to its log."""
    tail = _log_tail(index_dir / _LOG) if job.has_log else ()
    for number, line in enumerate(tail):
        if line.startswith(_TOLD):
            error = "\n".join([line.removeprefix(_TOLD), *tail[number + 1 :]])
            return replace(job, state="failed", error=error, log_tail=tail)
    return replace(job, state="died", error=_KILLED, log_tail=tail)


def _log_tail(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    return tuple(line for line in lines if line.strip())[-_TAIL_LINES:]


# ---------------------------------------------------------------- processes


def _is_alive(job: Job) -> bool:
    return bool(job.pid_started) and _process_started(job.pid) == job.pid_started


def _process_started(pid: int) -> str | None:
    """When a process began; None where it is gone. Together with its number it names a process for good."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        # the name, in brackets, may hold anything; then come state and others, the 20th is the start in ticks
        fields = stat[stat.rindex(b")") + 2 :].split()
        return None if fields[0] in (b"Z", b"X") else f"{_boot()} {fields[19].decode()}"
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return told[1].strip() if len(told) == 2 and not told[0].startswith("Z") else None


@cache
def _boot() -> str:
    """Names the time since the machine was started: ticks count from there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
