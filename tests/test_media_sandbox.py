"""Decoders that have been taken over: what they try is refused, and decoding goes on."""

import ctypes
import errno
import multiprocessing
import os
import resource
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanonce.media import landlock, sandbox, seccomp
from scanonce.media.answers import Failed, Finished, Opened
from scanonce.media.open import BACKENDS
from scanonce.media.seccomp import Unavailable
from scanonce.media.trial import ATTEMPTS, Trial, attempt_all
from scanonce.media.workers import DecodePool
from tests.background import wait_for
from tests.command import ROOT
from tests.decoding import decode, make_request, misbehave_on
from tests.videos import write_video

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this sandbox"),
]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "good.mp4", num_frames=60).path


def test_nothing_that_a_decoder_tries_succeeds() -> None:
    assert attempt_all() == Trial((), ())


def test_a_trial_says_what_is_possible_without_protection(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    for attempt in ATTEMPTS.values():
        attempt(other)


def _call(number: int, *values: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*map(ctypes.c_long, (number, *values))) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _as_datagram(_: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):
        pass


def _find_secret(_: Path) -> None:
    if "SCANONCE_TEST_TOKEN" not in os.environ:
        raise PermissionError


TRICKS: dict[str, Callable[[Path], object]] = {
    "read a neighbour": lambda video: video.with_name("neighbour.txt").read_bytes(),
    "read a system file": lambda _: Path("/etc/passwd").read_bytes(),
    "list its folder": lambda video: os.listdir(video.parent),
    "write itself": lambda video: video.write_bytes(b"other"),
    "write a new file": lambda video: video.with_name("new").touch(),
    "write a file of its program": lambda _: os.open(sandbox.__file__, os.O_RDWR),
    "follow a link of its own": lambda video: os.symlink("/etc/passwd", video.with_name("link")),
    "delete its file": lambda video: video.unlink(),
    "rename its file": lambda video: video.rename(video.with_name("renamed")),
    "change a mode": lambda video: video.chmod(0o777),
    "change a time": lambda video: os.utime(video),
    "execute": lambda _: os.execv("/bin/true", ["true"]),
    "fork": lambda _: os.fork() or os._exit(9),
    "start a program": lambda _: subprocess.run(["/bin/true"]),
    "connect": lambda _: socket.create_connection(("127.0.0.1", 1)),
    "open a datagram socket": _as_datagram,
    "make a pair of sockets": lambda _: socket.socketpair(),
    "signal its parent": lambda _: os.kill(os.getppid(), 0),
    "signal everybody": lambda _: os.kill(-1, 0),
    "limit its parent": lambda _: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    "read its own environment": lambda _: Path("/proc/self/environ").read_bytes(),
    "read its parent's environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "know a token": _find_secret,
    "use io_uring": lambda _: _call(425, 1, 0),
    "call what is newer": lambda _: _call(467, 0),
}


@pytest.mark.parametrize("place", ["in the decoder", "in a thread of it"])
def test_tricks_of_a_decoder_are_refused(
    video: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("SCANONCE_TEST_TOKEN", "secret")
    video.with_name("neighbour.txt").write_text("private")
    bad = video.with_name("bad.mp4")
    bad.write_bytes(video.read_bytes())
    done: list[str] = []

    def try_all(path: Path) -> None:
        for name, trick in TRICKS.items():
            try:
                trick(path)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS) or not error.errno:
                    continue
                done.append(f"{name}: {error}")
            else:
                done.append(name)

    def hostile(_: Any, __: Any, path: Path, *___: Any) -> None:
        if place == "in the decoder":
            try_all(path)
        else:
            thread = threading.Thread(target=try_all, args=(path,))
            thread.start()
            thread.join()
        os.write(2, f"succeeded: {done}; read {len(path.read_bytes())}".encode())
        os.abort()

    misbehave_on(monkeypatch, {bad.name: hostile})
    failure, good = decode(bad, video)
    assert isinstance(failure[-1], Failed)
    assert failure[-1].detail.startswith(f"succeeded: []; read {video.stat().st_size}")
    assert isinstance(good[-1], Finished), "neither is the next file harmed"


def threads_of(pid: int) -> list[dict[str, str]]:
    """Return the lines of /proc/PID/status of each thread."""
    folders = Path(f"/proc/{pid}/task").iterdir()
    lines = [(each / "status").read_text().splitlines() for each in folders]
    return [dict(line.split(":\t", 1) for line in each if ":\t" in line) for each in lines]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_thread_of_a_real_decoder_is_under_the_filter(tmp_path: Path, backend: str) -> None:
    long = write_video(tmp_path / "long.mkv", num_frames=3000).path
    with DecodePool(make_request(backend=backend), workers=1) as pool:
        assert isinstance(next(pool.decode([long])), Opened)
        (decoder,) = [each for each in multiprocessing.active_children() if each.name == "decoder"]
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGSTOP)  # so that no thread ends while they are read
        status = Path(f"/proc/{decoder.pid}/status")
        wait_for(lambda: "(stopped)" in status.read_text())
        threads = threads_of(decoder.pid)
        os.kill(decoder.pid, signal.SIGCONT)
    assert len(threads) > 1
    assert {each["Seccomp"] for each in threads} == {"2"}
    assert {each["NoNewPrivs"] for each in threads} == {"1"}


SEARCH_MEMORY = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from scanonce.media.workers import DecodePool
from tests.decoding import make_request

if __name__ == "__main__":
    with DecodePool(make_request(), workers=1) as pool:
        next(pool.decode([Path(sys.argv[1])]))
        (pid,) = [each.pid for each in multiprocessing.active_children()]
        os.kill(pid, signal.SIGSTOP)  # so that it gives no memory back while it is read
        while "(stopped)" not in Path(f"/proc/{{pid}}/status").read_text():
            time.sleep(0.001)
        found = ["environ"] if {name} in Path(f"/proc/{{pid}}/environ").read_bytes() else []
        with open(f"/proc/{{pid}}/maps") as maps, open(f"/proc/{{pid}}/mem", "rb", 0) as memory:
            for line in maps:
                span, mode, *_ = line.split()
                if not mode.startswith("rw") or "[v" in line:
                    continue
                start, end = (int(each, 16) for each in span.split("-"))
                memory.seek(start)
                if {name} in memory.read(end - start):
                    found.append(line)
        os.kill(pid, signal.SIGCONT)
        print(found)
"""


def test_no_token_is_in_the_memory_of_a_decoder(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", num_frames=3000).path
    token = secrets.token_hex(24)
    script = tmp_path / "search.py"
    # the token is turned around here, so that only the environment has it
    script.write_text(SEARCH_MEMORY.format(name=f"{token[::-1]!r}[::-1].encode()"))
    found = subprocess.run(
        [sys.executable, script, long],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_TOKEN": token},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.parametrize("part", ["landlock.restrict", "seccomp.install"])
def test_a_kernel_that_lacks_a_part_is_no_obstacle(
    video: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def lack(*_: object) -> None:
        raise Unavailable("Landlock: Function not implemented")

    def report(_: Any, __: Any, path: Path, *___: Any) -> None:
        reads = other = True
        try:
            Path("/etc/passwd").read_bytes()
        except PermissionError:
            other = False
        try:
            socket.socket().close()
            sockets = True
        except PermissionError:
            sockets = False
        os.write(2, f"{reads=} {other=} {sockets=}|".encode())
        os.abort()

    module, name = part.split(".")
    monkeypatch.setattr({"landlock": landlock, "seccomp": seccomp}[module], name, lack)
    bad = video.with_name("bad.mp4")
    bad.touch()
    misbehave_on(monkeypatch, {bad.name: report})
    ((failure,), good) = decode(bad, video)
    assert isinstance(failure, Failed)
    is_landlock = module == "landlock"
    assert failure.detail.startswith(f"reads=True other={is_landlock} sockets={not is_landlock}|")
    assert isinstance(good[-1], Finished)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(*_: object) -> None:
        raise Unavailable("Landlock: Function not implemented")

    monkeypatch.setattr(landlock, "restrict", lack)
    monkeypatch.setattr(seccomp, "install", lambda: None)
    monkeypatch.setattr(sandbox, "_NO_NEW_PRIVILEGES", 39)  # reads the flag
    assert "Landlock: Function not implemented" in sandbox.confine([])


def test_packages_that_are_links_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, installed = tmp_path / "shared", tmp_path / "venv" / "site-packages"
    (shared / "package").mkdir(parents=True)
    (shared / "module.py").touch()
    (shared / "other.py").touch()
    installed.mkdir(parents=True)
    for name in ("package", "module.py"):
        (installed / name).symlink_to(shared / name)
    monkeypatch.setattr(sys, "path", [str(installed), str(tmp_path / "gone" / "site-packages")])
    found = sandbox.code_folders.__wrapped__()
    assert {path for path in found if path.is_relative_to(tmp_path)} == {
        shared / "package",
        shared / "module.py",
        installed,
        tmp_path / "gone" / "site-packages",
    }


# --- the filter, run by an interpreter of its instructions

ALLOWED, REFUSED, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run_filter(program: bytes, data: bytes) -> int:
    """Return the answer of a BPF program to a system call (struct seccomp_data)."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    position, value = 0, 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == 0x54:
            value &= operand
        else:
            holds = {0x15: value == operand, 0x25: value > operand}[code]
            position += if_true if holds else if_false


PID = 4242
CALLS = {
    # (name, first argument): numbers on x86_64 and aarch64, answer
    ("read", 0): (0, 63, ALLOWED),
    ("openat", 0): (257, 56, ALLOWED),
    ("mmap", 0): (9, 222, ALLOWED),
    ("futex", 0): (202, 98, ALLOWED),
    ("exit_group", 0): (231, 94, ALLOWED),
    ("a thread", 0x3D0F00): (56, 220, ALLOWED),
    ("a fork", 0x1200011): (56, 220, REFUSED),
    ("a thread in a namespace", 0x10010000): (56, 220, REFUSED),
    ("clone3", 0): (435, 435, UNKNOWN),
    ("execve", 0): (59, 221, REFUSED),
    ("execveat", 0): (322, 281, REFUSED),
    ("socket", 0): (41, 198, REFUSED),
    ("ptrace", 0): (101, 117, REFUSED),
    ("kill itself", PID): (62, 129, ALLOWED),
    ("kill its parent", PID - 1): (62, 129, REFUSED),
    ("kill everybody", 2**32 - 1): (62, 129, REFUSED),
    ("tgkill itself", PID): (234, 131, ALLOWED),
    ("tgkill another", 1): (234, 131, REFUSED),
    ("prlimit itself", 0): (302, 261, ALLOWED),
    ("prlimit another", 1): (302, 261, REFUSED),
    ("mount", 0): (165, 40, REFUSED),
    ("bpf", 0): (321, 280, REFUSED),
    ("io_uring_setup", 0): (425, 425, REFUSED),
    ("newer than the table", 0): (463, 463, UNKNOWN),
    ("x32", 0): (0x40000000, 0x40000000, UNKNOWN),
}


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_has_its_answer_on_each_machine(call: tuple[str, int], machine: str) -> None:
    on_x86, on_arm, answer = CALLS[call]
    number = on_x86 if machine == "x86_64" else on_arm
    program = seccomp.build(machine, PID)
    data = struct.pack("=IIQ6Q", number, ARCHITECTURES[machine], 0, call[1], *[0] * 5)
    assert run_filter(program, data) == answer


def test_calls_of_another_machine_are_refused() -> None:
    program = seccomp.build("x86_64", PID)
    data = struct.pack("=IIQ6Q", 0, 0x40000003, 0, *[0] * 6)  # i386
    assert run_filter(program, data) == REFUSED


def test_a_decoder_that_aborts_is_still_described(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehave_on(monkeypatch, {video.name: lambda *_: signal.raise_signal(signal.SIGABRT)})
    ((failure,),) = decode(video)
    assert isinstance(failure, Failed)
    assert "SIGABRT" in failure.reason
