"""What a decoder that has been taken over could do on this machine: a locked-down child tries it.

attempt_all().possible  # [] if nothing succeeds
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from scanonce.media import guard
from scanonce.media.limits import Limits
from scanonce.media.messages import receive_header, send, text

_LIMITS = Limits(stall_seconds=60.0, cpu_seconds=60, file_bytes=guard.MAX_PRINTED_BYTES)


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of `attempt_all`."""

    possible: tuple[str, ...]
    """Of `ATTEMPTS`, those that succeeded."""
    missing: tuple[str, ...]
    """Protections that could not be set up, each with a reason."""


def attempt_all() -> Trial:
    """Let a locked-down child try all `ATTEMPTS`; about 0.3 s.

    Raises:
        DecoderCrashed: the child ended without an answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        video, other = Path(folder) / "video", Path(folder) / "other"
        video.touch()
        other.touch()
        process, connection = guard.launch("scanonce.media.trial", _LIMITS)
        with guard.Child(process, connection, _LIMITS) as child:
            child.send([os.fsencode(each).hex() for each in (video, other)])
            while not connection.poll(0.2):
                child.check_progress()
            return child.read(lambda: _receive(connection))


def _receive(connection: Connection) -> Trial:
    _, values = receive_header(connection)
    possible = tuple(name for name in ATTEMPTS if name in values["possible"])
    return Trial(possible, tuple(text(each) for each in values["missing"]))


# ---------------------------------------------------------------- the child's side


def main() -> None:
    """Lock this process down to one file, and try the rest."""
    connection, limits = guard.launched()
    with guard.serving(connection, limits):
        video, other = (
            Path(os.fsdecode(bytes.fromhex(each))) for each in json.loads(connection.recv_bytes())
        )
        missing = guard.lock_down(connection, [video])
        video.read_bytes()
        possible = [name for name, attempt in ATTEMPTS.items() if _succeeds(attempt, other)]
        send(connection, "tried", {"possible": possible, "missing": missing})
    os._exit(0)


def _succeeds(attempt: Callable[[Path], object], other: Path) -> bool:
    try:
        attempt(other)
    except OSError:
        return False
    return True


def _start_program(_: Path) -> None:
    os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}), 0)


def _write(other: Path) -> None:
    other.open("ab").close()


def _signal(_: Path) -> None:
    os.kill(os.getppid(), 0)


def _open_socket(_: Path) -> None:
    socket.socket().close()


def _read_environment(_: Path) -> None:
    if sys.platform != "linux":
        raise PermissionError  # not by a file
    Path(f"/proc/{os.getppid()}/environ").read_bytes()


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "read other files": Path.read_bytes,
    "write files": _write,
    "start programs": _start_program,
    "open sockets": _open_socket,
    "signal other processes": _signal,
    "read the environment of other processes": _read_environment,
}
"""All attempts; each raises OSError if it is refused. The argument is a file of the user."""


if __name__ == "__main__":
    main()
