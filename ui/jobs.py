"""Indexing in a process of its own, which survives a closed page and a restarted server.

    start(index_dir, [Path("/films")])       # returns at once
    read(index_dir).state                    # "running", finally "done"
    pause(index_dir); resume(index_dir)      # videos indexed by then are kept

Every `scanonce index`, also one from a terminal, writes its progress into the index directory (:func:`recorded`):

    run.json    the current run, or the last one
    run.pause   the process that was asked to pause
    run.log     the output of a run without a terminal
    run.lock    held while a run starts, so that a second click does not start another

Process ids are reused, so a process is identified by its id together with the time it started.
Starting and pausing need Linux or macOS.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
from filelock import FileLock
from pydantic import TypeAdapter

from scanonce.storage.catalog.entries import RunCounts
from scanonce.storage.errors import ConfigError, IndexDirectoryError, ScanonceError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.untrusted import DamagedFile, open_regular, read_json
from scanonce.storage.writer import refuse_while_written, writing

if TYPE_CHECKING:  # it imports torch, which starting and watching a run does without
    from scanonce.indexer.pipeline import IndexReport, Progress

JobState = Literal["running", "pausing", "paused", "done", "failed", "stopped", "died"]
"""``paused``: by :func:`pause`; ``stopped``: by Ctrl-C; ``died``: its process ended without a report."""

_RUN, _PAUSE, _LOG, _LOCK = "run.json", "run.pause", "run.log", "run.lock"
_DETACHED = "SCANONCE_DETACHED"  # environment variable: this run has no terminal
_WRITE_SECONDS = 0.5  # between two writes of run.json
_RATE_SECONDS = 30.0  # rates are averages over this time
_TAIL_LINES, _TAIL_BYTES = 12, 8_000
_ERROR_PREFIX = "scanonce: "  # `ui.cli.main` prints it before an error
_NICENESS = 5  # searches get the processor first

_KILLED = (
    "The run ended without finishing: it was killed, ran out of memory, or the machine went down. All videos indexed "
    "so far are kept: resume goes on from there."
)
MODULE = "scanonce.ui.cli"
"""The module whose command runs."""
_BROKEN = (
    "This should not happen: please report it with the log. All videos indexed so far are kept."
)


@dataclass(frozen=True, slots=True)
class Job:
    """A run of the indexer: its progress, or how it ended."""

    pid: int
    pid_started: str
    """When the process started, see :func:`_process_started`."""
    paths: tuple[Path, ...]
    state: JobState
    started_at: datetime
    """UTC."""
    updated_at: datetime
    """UTC; the last write of ``run.json``."""
    retry: bool = False
    """Whether it also decodes again the videos that failed before."""
    encoder: str | None = None
    """The encoder it was given. None: that of the index or the configuration."""
    has_log: bool = False
    """Whether it writes ``run.log``."""
    doing: str = "starting"
    """For people, until there is progress to show."""
    videos_done: int = 0
    videos_total: int | None = None
    """None: not known yet."""
    bytes_done: float = 0.0
    bytes_total: int = 0
    video_seconds: float = 0.0
    """Decoded and encoded so far."""
    rate: float | None = None
    """Seconds of video per second, over the last 30 s."""
    seconds_left: float | None = None
    current: Path | None = None
    counts: RunCounts | None = None
    """Its result, once it has ended."""
    num_offline: int = 0
    """Number of known files that are offline; they stay in the index."""
    error: str | None = None
    """Why it failed or died, with the next step."""
    log_tail: tuple[str, ...] = ()
    """Last lines of its log, if it failed or died."""

    @property
    def alive(self) -> bool:
        """Whether its process is at work."""
        return self.state in ("running", "pausing")

    @property
    def resumable(self) -> bool:
        """Whether it ended with work left."""
        return self.state in ("paused", "stopped", "died")

    @property
    def share(self) -> float:
        """The part of its bytes that is done, 0 to 1."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else 0.0


_JOB = TypeAdapter(Job)

# ---------------------------------------------------------------- for the pages


def start(
    index_dir: Path,
    paths: Sequence[Path],
    *,
    config: Path | None = None,
    encoder: str | None = None,
    retry: bool = False,
) -> Job:
    """Start `scanonce index` in a process that outlives this one, and return at once.

    Args:
        index_dir: the index directory; made if it does not exist.
        paths: folders, or single video files.
        config: configuration file. Default: as for the command line.
        encoder: encoder of a new index. Default: that of the configuration.
        retry: also decode again the videos that failed before.

    Raises:
        IndexDirectoryError: a run is at work there already, or nothing can be written there.
        ConfigError: no paths.
    """
    if not paths:
        raise ConfigError("there is no folder to index: add one first.")
    roots = tuple(Path(os.path.abspath(path)) for path in paths)
    command = [
        sys.executable,
        "-m",
        MODULE,
        "index",
        *map(str, roots),
        "--index",
        str(index_dir),
    ]
    if config is not None:
        command += ["--config", os.path.abspath(config)]
    if encoder is not None:
        command += ["--encoder", encoder]
    if retry:
        command.append("--retry")
    with _starting(index_dir):
        with (index_dir / _LOG).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, _DETACHED: "1", "PYTHONUNBUFFERED": "1"},
            )
        job = _new_job(process.pid, roots, encoder=encoder, retry=retry, has_log=True)
        _write(index_dir, job)
    # a child that nobody waits for stays as a zombie
    threading.Thread(target=process.wait, name="index run", daemon=True).start()
    return job


def read(index_dir: Path) -> Job | None:
    """Return the current run, or the last one; None if there was none."""
    job = _read(index_dir)
    if job is None:
        return None
    if job.state == "running" and not _is_alive(job):
        job = _read(index_dir) or job  # it may have ended between the two calls
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
    """Ask the run to stop cleanly. Videos indexed so far are kept, and :func:`resume` goes on from there.

    Raises:
        IndexDirectoryError: no run is at work there.
    """
    job = read(index_dir)
    if job is None or not job.alive:
        raise IndexDirectoryError(
            f"no run is at work on the index {index_dir}: there is nothing to pause."
        )
    if job.state == "running":  # a second interrupt would stop it before it has saved its state
        _write_json(index_dir / _PAUSE, {"pid": job.pid, "pid_started": job.pid_started})
        with contextlib.suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGINT)
    return replace(job, state="pausing")


def resume(index_dir: Path, *, config: Path | None = None) -> Job:
    """Start the last run again, with the same paths; indexed videos are not decoded again.

    Raises:
        IndexDirectoryError: a run is at work there already, or there was none.
    """
    job = _read(index_dir)
    if job is None:
        raise IndexDirectoryError(f"no run was made on the index {index_dir}: start one.")
    return start(index_dir, job.paths, config=config, encoder=job.encoder, retry=job.retry)


# ---------------------------------------------------------------- for the run itself


class Recorder:
    """Writes the progress of a run, at most twice a second. :func:`recorded` makes it."""

    def __init__(self, index_dir: Path, job: Job) -> None:
        self._index_dir = index_dir
        self._job = job
        self._written_at = 0.0
        self._samples: deque[tuple[float, float, float]] = deque()  # time, video seconds, bytes

    def report(self, doing: str) -> None:
        """Report what the run does before it has any progress.

        Raises:
            KeyboardInterrupt: see :meth:`on_progress`.
        """
        self._job = replace(self._job, doing=doing)
        self._write_progress()

    def on_progress(self, progress: "Progress") -> None:
        """Callback for `index_library`.

        Raises:
            KeyboardInterrupt: the run was asked to pause, and the signal was lost (a library may have swallowed it).
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
        if now - self._written_at >= _WRITE_SECONDS:
            self._write_progress()

    def finish(self, report: "IndexReport") -> None:
        """Write the result of the run."""
        self._job = replace(self._job, counts=report.counts, num_offline=report.num_offline)
        if report.interrupted:
            self._end(self._interrupted())
        else:
            self._end("done")

    def _rates(self, now: float, progress: "Progress") -> tuple[float | None, float | None]:
        """Return seconds of video per second, and seconds left."""
        self._samples.append((now, progress.video_seconds, progress.bytes_done))
        while now - self._samples[0][0] > _RATE_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        then, seconds, num_bytes = self._samples[0]
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

    def _write_progress(self) -> None:
        self._written_at = time.monotonic()
        self._save()
        if _asked_to_pause(self._index_dir, self._job):
            raise KeyboardInterrupt

    def _end(self, state: JobState, error: str | None = None) -> None:
        self._job = replace(
            self._job, state=state, error=error, current=None, seconds_left=None, rate=None
        )
        self._save()

    def _save(self) -> None:
        # on a full disk the run itself fails, with its own error
        with contextlib.suppress(OSError):
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
    """Record a run of the indexer: its progress and its end can be read by other processes.

    Args:
        index_dir: the index directory.
        paths: folders and files of the run.
        encoder, retry: see `Job`.
        doing: the command, for a second writer's error message.

    Raises:
        IndexDirectoryError: another run is at work there, or nothing can be written there.
    """
    detached = os.environ.pop(_DETACHED, None) is not None
    if detached:
        # a server that was started in the background passes on that interrupts are ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.nice(_NICENESS)
    with writing(IndexLayout.of(index_dir), doing):
        with _starting(index_dir, own_pid=os.getpid()):
            roots = tuple(Path(os.path.abspath(path)) for path in paths)
            job = _new_job(os.getpid(), roots, encoder=encoder, retry=retry, has_log=detached)
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
def _starting(index_dir: Path, *, own_pid: int | None = None) -> Iterator[None]:
    """Hold the lock under which runs start; refuse if another run than that of ``own_pid`` is at work."""
    with _reported(index_dir):
        index_dir.mkdir(parents=True, exist_ok=True)
        IndexLayout(index_dir).refuse_links()
        with FileLock(index_dir / _LOCK):
            other = read(index_dir)
            if other is not None and other.alive and other.pid != own_pid:
                since = other.started_at.astimezone().strftime("%H:%M")
                raise IndexDirectoryError(
                    f"the index {index_dir} is being written by another run (process {other.pid}, since {since}): "
                    "wait until it has ended, or pause it on the library page."
                )
            if own_pid is None:
                refuse_while_written(IndexLayout.of(index_dir))
            if other is None or other.pid != own_pid:
                (index_dir / _PAUSE).unlink(missing_ok=True)
            yield


@contextmanager
def _reported(index_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IndexDirectoryError(
            f"a run cannot be started on the index {index_dir} ({error.strerror or error}). Make room or check the "
            "folder's permissions, then try again."
        ) from error


def _new_job(
    pid: int, paths: tuple[Path, ...], *, encoder: str | None, retry: bool, has_log: bool
) -> Job:
    now = datetime.now(UTC)
    return Job(
        pid=pid,
        pid_started=_process_started(pid) or "",
        paths=paths,
        state="running",
        started_at=now,
        updated_at=now,
        retry=retry,
        encoder=encoder,
        has_log=has_log,
    )


def _write(index_dir: Path, job: Job) -> None:
    values = asdict(replace(job, log_tail=()))
    values["paths"] = [str(path) for path in job.paths]
    values["current"] = str(job.current) if job.current else None
    for name in ("started_at", "updated_at"):
        values[name] = values[name].timestamp()
    _write_json(index_dir / _RUN, values)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file whole or not at all. It is not synced: after a power cut the run is dead whatever the file says."""
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
    """Return what the run wrote last; None if there is no valid file."""
    try:
        values = read_json(index_dir / _RUN)
        values["paths"] = tuple(Path(path) for path in values["paths"])
        values["current"] = Path(values["current"]) if values["current"] else None
        values["counts"] = RunCounts(**values["counts"]) if values["counts"] else None
        values["log_tail"] = ()
        for name in ("started_at", "updated_at"):
            values[name] = datetime.fromtimestamp(values[name], UTC)
        return _JOB.validate_python(values)
    except (OSError, DamagedFile, ValueError, KeyError, TypeError, OverflowError):
        return None


def _asked_to_pause(index_dir: Path, job: Job) -> bool:
    try:
        asked = read_json(index_dir / _PAUSE)
    except (OSError, DamagedFile):
        return False
    return bool(asked == {"pid": job.pid, "pid_started": job.pid_started})


def _post_mortem(index_dir: Path, job: Job) -> Job:
    """Return a run that ended without a report, as failed if its log ends with an error, else as died."""
    tail = _log_tail(index_dir / _LOG) if job.has_log else ()
    for number, line in enumerate(tail):
        if line.startswith(_ERROR_PREFIX):
            error = "\n".join([line.removeprefix(_ERROR_PREFIX), *tail[number + 1 :]])
            return replace(job, state="failed", error=error, log_tail=tail)
    return replace(job, state="died", error=_KILLED, log_tail=tail)


def _log_tail(path: Path) -> tuple[str, ...]:
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except (OSError, DamagedFile):
        return ()
    return tuple(line for line in lines if line.strip())[-_TAIL_LINES:]


# ---------------------------------------------------------------- processes


def _is_alive(job: Job) -> bool:
    return bool(job.pid_started) and _process_started(job.pid) == job.pid_started


def _process_started(pid: int) -> str | None:
    """Return the seconds from the start of the machine to that of a process, to 0.01 s; None if it has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        # on Linux both times move when the clock is set, their difference does not
        return f"{process.create_time() - psutil.boot_time():.2f}"
    except (psutil.Error, ValueError, OverflowError):  # no process ever had such an id
        return None
