"""Guarded child processes: a broken or hostile file costs its own job, never the parent.

The parent starts a child with `fork` (many files, milliseconds each) or `launch` (one job, a fresh interpreter that
inherits next to no environment), and talks to it through a `Child`. The child works inside `serving`, which sets its
limits, and calls `lock_down` before it opens a file. Both ends see to it that

* a child that crashes, stalls, prints without end or exceeds its memory or processor time ends, with a reason;
* a child never outlives its parent;
* messages are JSON and raw bytes, never pickles; each has a maximum length, and the parent checks every value.

A decoder that has been taken over can therefore not run code in the parent, fill its memory or put nonsense into the
catalogue (`media.messages`). On Linux it can do hardly anything else either (`media.sandbox`).
"""

import contextlib
import faulthandler
import json
import math
import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from scanonce.media import sandbox
from scanonce.media.limits import Limits
from scanonce.media.messages import ParentGone, printable
from scanonce.storage.errors import DecoderCrashed

MAX_PRINTED_BYTES = 16 << 20
"""Output that a child may print between two messages."""
OUT_OF_MEMORY = 77
"""Exit code of a child that reached its memory limit."""
NONSENSE = "the decoder's answer made no sense"
ONE_FILE_EACH: Final = sys.platform == "linux"
"""Whether a forked child is locked down to one file, so that the next file needs another child."""

_MESSAGE_SECONDS = 10.0  # from the first byte of a message to its last; the reader waits meanwhile
_MAX_TAIL_CHARS = 2000
# FFmpeg's words if it got no memory for a frame; a frame that is too large for FFmpeg is refused in other words
_NO_MEMORY = "get_buffer() failed"

T = TypeVar("T")


# ---------------------------------------------------------------- starting a child


class _Program(subprocess.Popen[bytes]):
    """A fresh interpreter with the methods of `multiprocessing.Process`."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def join(self, timeout: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout)

    def close(self) -> None:
        """Nothing is left to close once the process has ended."""


def fork(
    serve: Callable[..., None], request: object, *, preload: Sequence[str]
) -> tuple[Any, Connection]:
    """Start ``serve(connection, request)`` in a child forked from a clean server (Linux) or spawned.

    Args:
        serve: a function of a module, which works inside `serving`.
        request: picklable; the parent is trusted, so pickles may travel in this direction.
        preload: modules that the server imports once, so that a new child costs milliseconds.

    Returns:
        The process and the parent's end of the connection.
    """
    context = process_context(preload)
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, request), daemon=True, name="decoder")
    with _without_main():
        process.start()
    theirs.close()
    return process, ours


def launch(module: str, limits: Limits) -> tuple[Any, Connection]:
    """Start ``python -m module`` in a minimal environment; it begins with `launched`.

    About 0.2 s if the module imports PyAV and numpy only.

    Returns:
        The process and the parent's end of the connection.
    """
    ours, theirs = multiprocessing.Pipe()
    environment = {name: os.environ[name] for name in sandbox.KEPT_VARIABLES if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["OPENBLAS_NUM_THREADS"] = "1"  # no thread starts before `lock_down`
    options: dict[str, Any]
    if sys.platform == "win32":
        os.set_handle_inheritable(theirs.fileno(), True)
        attributes = {"handle_list": [theirs.fileno()]}
        options = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList=attributes)}
    else:
        options = {"pass_fds": [theirs.fileno()]}
    null = subprocess.DEVNULL
    process = _Program(
        [*command(module), str(theirs.fileno()), json.dumps(asdict(limits))],
        **{"stdin": null, "stdout": null, "stderr": null, "env": environment, **options},
    )
    theirs.close()
    return process, ours


def command(module: str) -> list[str]:
    """The program that `launch` starts, without its arguments."""
    # -P: modules are not searched in the current folder
    return [sys.executable, "-P", "-m", module]


def launched() -> tuple[Connection, Limits]:
    """The child's end of the connection and its limits, in a process that `launch` started."""
    handle, limits = int(sys.argv[1]), Limits(**json.loads(sys.argv[2]))
    if sys.platform == "win32":
        return connections.PipeConnection(handle), limits
    return Connection(handle), limits


def process_context(preload: Sequence[str]) -> Any:
    """The way `fork` starts processes. Forking the parent itself would copy its threads' locks."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep children started inside from importing the main module again.

    It may be a user's script: children need nothing of it, it can take seconds to import, and a script without
    ``if __name__ == "__main__"`` would run a second time.
    """
    main = sys.modules["__main__"]
    names: dict[str, Any] = {
        name: vars(main).pop(name) for name in ("__spec__", "__file__") if name in vars(main)
    }
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(names)


# ---------------------------------------------------------------- the parent's side


class Child:
    """The parent's end of one guarded process."""

    def __init__(
        self,
        process: Any,
        connection: Connection,
        limits: Limits,
        cancel: threading.Event | None = None,
    ) -> None:
        """Take over what `fork` or `launch` returned, and capture the output of the child.

        Args:
            process: the child, a `multiprocessing.Process` or a `_Program`.
            connection: the parent's end of the connection.
            limits: the limits with which it was started.
            cancel: ends waiting for the rest of a message if it is set.
        """
        self.connection = connection
        self.limits = limits
        self.printed = _Printed()
        self.heard_at = time.monotonic()
        """When the last message came; the child counts as stalled from there on."""
        self._process = process
        self._cancel = cancel or threading.Event()
        self._killed_for: str | None = None
        self._reading_since: float | None = None
        self._is_stopped = threading.Event()
        self._watch = threading.Thread(target=self._end_half_messages, daemon=True, name="watch")
        self._watch.start()
        if sys.platform != "win32":
            # a child that died at once is noticed when it is read
            with contextlib.suppress(OSError, RuntimeError):
                send_handle(connection, self.printed.fileno(), process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send(self, message: object) -> None:
        """Send JSON, and expect answers from now on."""
        self.printed.clear()
        self.heard_at = time.monotonic()
        with contextlib.suppress(OSError):  # a child that died is noticed when it is read
            self.connection.send_bytes(json.dumps(message).encode())

    def read(self, receive: Callable[[], T]) -> T:
        """Return the result of ``receive``, which reads and checks the next message of the child.

        Raises:
            DecoderCrashed: the child is gone, was killed, or sent nonsense; the message says why.
        """
        self.heard_at = self._reading_since = time.monotonic()
        try:
            return receive()
        except (EOFError, OSError) as error:
            raise DecoderCrashed(self._describe_exit()) from error
        except Exception as error:  # whatever a decoder that was taken over sends
            raise DecoderCrashed(NONSENSE) from error
        finally:
            self._reading_since = None

    def check_progress(self) -> None:
        """Raise DecoderCrashed if the child has to be stopped."""
        if self.printed.size() >= MAX_PRINTED_BYTES:
            megabytes = MAX_PRINTED_BYTES >> 20
            raise DecoderCrashed(f"the decoder printed {megabytes} MB of messages and was stopped")
        silent = time.monotonic() - self.heard_at
        if silent > self.limits.stall_seconds and not self.connection.poll():
            raise DecoderCrashed(f"the decoder gave no frame for {silent:.0f} s and was stopped")

    def was_denied_memory(self) -> bool:
        """Whether the decoder got no memory for a frame, which it reports as a damaged file."""
        return _NO_MEMORY in self.printed.tail()

    def describe_memory(self) -> str:
        """The reason of a child that reached its memory limit."""
        return f"its frames need more than {self.limits.memory_mb} MB of memory"

    def stop(self) -> None:
        """End the child, which holds nothing of value, and free everything."""
        self._is_stopped.set()
        self._watch.join()
        self._process.kill()
        self._process.join(timeout=5)
        # a process that waits for a dead network drive ends when it can
        with contextlib.suppress(ValueError):
            self._process.close()
        self.connection.close()
        self.printed.close()

    def _describe_exit(self) -> str:
        self._process.join(timeout=2)
        code = self._process.exitcode
        if self._killed_for is not None or code is None:  # None: it has only closed its end
            return self._killed_for or NONSENSE
        if code == OUT_OF_MEMORY:
            return self.describe_memory()
        if code >= 0:
            return f"the decoder process ended (exit code {code})"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGXCPU":
            return f"it took more than {self.limits.cpu_seconds} s of processor time"
        if name == "SIGKILL":
            return "the decoder was killed from outside, perhaps for want of memory"
        return f"the decoder crashed on it ({name})"

    def _end_half_messages(self) -> None:
        """Kill the child if it does not end a message; in a thread of its own, because the reader waits."""
        while not self._is_stopped.wait(1.0):
            since = self._reading_since
            if since is not None and (
                self._cancel.is_set() or time.monotonic() - since > _MESSAGE_SECONDS
            ):
                self._killed_for = NONSENSE
                self._process.kill()
                return


class _Printed:
    """The captured output of a child: an unnamed file that both hold, so that its end outlives the child."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()

    def fileno(self) -> int:
        return self._file.fileno()

    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.fileno()).st_size

    def clear(self) -> None:
        """Drop everything. The child shares the write position, which returns to the beginning."""
        if self.size():
            self._file.seek(0)
            self._file.truncate()

    def drop_much(self) -> None:
        """Drop the complaints of a decoder that makes progress, so that it may go on complaining."""
        if self.size() > MAX_PRINTED_BYTES // 16:
            self.clear()

    def tail(self) -> str:
        """The last 2,000 characters, printable."""
        if sys.platform == "win32":  # the child prints to the console of the parent
            return ""
        length = 8 * _MAX_TAIL_CHARS
        # pread leaves the shared position alone
        data = os.pread(self.fileno(), length, max(0, self.size() - length))
        text = data.decode("utf-8", "replace")
        text = re.sub(r" @ 0x[0-9a-f]+", "", text)  # FFmpeg prints addresses of its contexts
        # parts of Python's crash report that show nothing: a long last line, and the thread of `_end_with_parent`
        text = re.sub(r"(?m)^Extension modules: .*$", "", text)
        text = re.sub(r"(?m)^Thread .*\n  File .* in _end_with_parent\n(  File .*\n)*\n?", "", text)
        return printable(text.strip()[-_MAX_TAIL_CHARS:], lines=True)

    def close(self) -> None:
        self._file.close()


# ---------------------------------------------------------------- the child's side


@contextlib.contextmanager
def serving(connection: Connection, limits: Limits) -> Iterator[None]:
    """Put this process under its limits; inside, files are decoded and messages sent.

    The process ends at its memory limit with `OUT_OF_MEMORY`, and at its processor limit by SIGXCPU.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        _print_to_parent(connection)
        _limit_process(limits)
        sandbox.forget_environment()
        yield
    except (ParentGone, EOFError, OSError):
        return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # a message, or an orderly end, would need memory


def lock_down(
    connection: Connection, read: Iterable[Path], write: Iterable[Path] = ()
) -> list[str]:
    """Give up what decoding does not need, and end with the parent from now on; call it once, before a file is opened.

    Args:
        connection: the child's end.
        read, write: see `media.sandbox.confine`.

    Returns:
        The protections that are missing here.
    """
    missing = sandbox.confine(read, write)
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    return missing


def allow_cpu(seconds: int) -> None:
    """Allow the process this much more processor time, after which SIGXCPU ends it."""
    if sys.platform == "win32":
        return
    import resource

    used = math.ceil(time.process_time())
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = used + seconds if hard == resource.RLIM_INFINITY else min(used + seconds, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _print_to_parent(connection: Connection) -> None:
    """Send all output of all libraries to the file that the parent hands over, FFmpeg's errors included."""
    if sys.platform == "win32":
        return
    import av.logging

    descriptor = recv_handle(connection)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    faulthandler.enable(2)
    # FFmpeg's own way of printing: PyAV's takes Python's lock in decoder threads
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)


def _limit_process(limits: Limits) -> None:
    """Limit memory, core dumps and file sizes for good, as far as the system can."""
    if sys.platform == "win32":
        return
    import resource

    _lower(resource.RLIMIT_CORE, 0)
    if limits.file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, limits.file_bytes)  # Python ignores SIGXFSZ: writing fails
    if sys.platform == "linux":
        # private writable mappings; the address space would count what torch only reserves
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        _lower(resource.RLIMIT_DATA, pages * resource.getpagesize() + (limits.memory_mb << 20))


def _lower(kind: int, wanted: int) -> None:
    """Set a limit that cannot be raised again, unless a lower one is set."""
    assert sys.platform != "win32"
    import resource

    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (limit, limit))


def _end_with_parent(connection: Connection) -> None:
    """End this process as soon as the parent has closed its end, however busy the decoder is."""
    if sys.platform == "win32":  # there it ends with the next message
        return
    poll = select.poll()
    poll.register(connection, 0)  # no event but a hang-up: incoming data is not for this thread
    # not for ever: a waiting poll would keep the connection open if the child itself closes it
    while not (events := poll.poll(1000)):
        pass
    if events[0][1] & select.POLLHUP:
        os._exit(1)
