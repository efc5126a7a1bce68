"""What the doors cost above the search itself, how the API holds idle connections and downloads, and its memory.

    python -m benchmarks.api [--requests 10000]

Five films of plain colours are indexed with the bundled encoder and served by `scanonce serve --api-only`, a process of
its own; the clients are coroutines of this one. Each answer has the time of the engine (``timings_ms.total``), so the
rest of the waiting is the door's: HTTP, JSON, the token, and queueing for a thread. At many clients all wait for the
cores, so the same searches are also asked by as many threads of this process without any door. Processor time does not
depend on other work of the machine. Downloads are thumbnails and clips in turn; one that is refused because too much
waits is asked again after the second that the answer names. All figures are of one run.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import urlsplit

import psutil
import typer
from rich.table import Table

from benchmarks.material import console, percentile, processor
from scanonce.library import Library
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.runtime import num_cores
from scanonce.ui.api.tokens import Tokens
from tests.colours import COLOURS, write_film
from tests.ui_server import ROOT, Server

CLIENTS = 20
IDLE = 1_000
DOWNLOADS = 500
COMMANDS = 10
_WARMING = 200
_EACH = 400
_FILMS = 5
_CHUNK = 1_000


@dataclass(slots=True)
class Times:
    """Milliseconds of some answers."""

    waited: list[float]
    engine: list[float]
    processor_ms: float = 0.0
    """Processor time of all of them, of the process that answers."""

    @property
    def processor_each(self) -> float:
        """Processor time of one answer."""
        return self.processor_ms / len(self.waited)

    @property
    def above(self) -> list[float]:
        """The waiting without the engine."""
        return [both - own for both, own in zip(self.waited, self.engine, strict=True)]


class Client:
    """One connection that is kept, without an HTTP library whose own time would be measured."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self._headers = f"HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        self._head = (
            f"POST /api/v1/search {self._headers}"
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
        )

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def close(self) -> None:
        """Disconnect."""
        self._writer.close()
        await self._writer.wait_closed()

    async def search(self, text: str) -> tuple[float, float]:
        """Search, and return the milliseconds of the waiting and of the engine."""
        body = json.dumps({"text": text, "top": 10}).encode()
        begin = time.perf_counter()
        status, content = await self._exchange(self._head.format(len(body)).encode() + body)
        waited = 1e3 * (time.perf_counter() - begin)
        assert status == 200, (status, content)
        return waited, float(json.loads(content)["timings_ms"]["total"])

    async def download(self, path: str) -> tuple[int, int]:
        """Get a file, asking again as often as too much is waiting; return its bytes and the number of refusals."""
        asked, refused = f"GET /api/v1/{path} {self._headers}\r\n".encode(), 0
        while True:
            status, content = await self._exchange(asked)
            if status != 429:
                assert status == 200, (status, content)
                return len(content), refused
            refused += 1
            await asyncio.sleep(1.0)

    async def _exchange(self, asked: bytes) -> tuple[int, bytes]:
        """Send a request, and return the status and the body of the answer."""
        self._writer.write(asked)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return int(head.split(" ")[1]), await self._reader.readexactly(length)


@dataclass(slots=True)
class Downloads:
    """What some downloads at once got."""

    num_bytes: int = 0
    refusals: int = 0
    seconds: float = 0.0
    searches: int = 0
    """Number of searches answered meanwhile."""


async def download(url: str, token: str, downloads: int) -> tuple[Downloads, Times]:
    """Download as many files at once, each by a connection of its own, while one client searches without a pause."""
    got, times, begin = Downloads(), Times([], []), time.perf_counter()

    async def get(number: int) -> None:
        client = Client(url, token)
        await client.open()
        start = (number // 10) % 10  # the first is thumbnail or clip, the second the video
        path = f"clip?start_seconds={start}&end_seconds={start + 2}"
        path = f"thumbnail?seconds={start}" if number % 2 else path
        num_bytes, refusals = await client.download(f"videos/{1 + number % _FILMS}/{path}")
        got.num_bytes += num_bytes
        got.refusals += refusals
        await client.close()

    async def search(files: "asyncio.Task[object]") -> None:
        client = Client(url, token)
        await client.open()
        while not files.done():
            waited, engine = await client.search("a red car")
            times.waited.append(waited)
            times.engine.append(engine)
        await client.close()

    async def all_files() -> None:
        await asyncio.gather(*(get(number) for number in range(downloads)))
        got.seconds = time.perf_counter() - begin

    files: asyncio.Task[object] = asyncio.create_task(all_files())
    await search(files)
    await files
    got.searches = len(times.waited)
    return got, times


async def ask(url: str, token: str, clients: int, requests: int) -> Times:
    """Ask as many searches by this number of clients at once, each as soon as its last one is answered."""
    times = Times([], [])
    left = iter(range(requests))

    async def work() -> None:
        client = Client(url, token)
        await client.open()
        for number in left:
            waited, engine = await client.search(f"a {_COLOURS[number % len(_COLOURS)]} car")
            times.waited.append(waited)
            times.engine.append(engine)
        await client.close()

    await asyncio.gather(*(work() for _ in range(clients)))
    return times


def ask_directly(library: Library, threads: int, requests: int) -> Times:
    """Ask the same searches by threads of this process."""
    times, before = Times([], []), time.process_time()

    def search(number: int) -> None:
        begin = time.perf_counter()
        result = library.search(f"a {_COLOURS[number % len(_COLOURS)]} car", top=10)
        times.waited.append(1e3 * (time.perf_counter() - begin))
        times.engine.append(result.timings_ms["total"])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, range(requests)))
    times.processor_ms = 1e3 * (time.process_time() - before)
    return times


def ask_server(server: Server, token: str, clients: int, requests: int, idle: int = 0) -> Times:
    """Ask a server, with its processor time; see `ask`."""
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    times = asyncio.run(with_idle(server.url, token, clients, requests, idle))
    times.processor_ms = 1e3 * (sum(process.cpu_times()[:2]) - before)
    return times


async def with_idle(url: str, token: str, clients: int, requests: int, connections: int) -> Times:
    """Ask while other connections are open and silent."""
    idle = [Client(url, token) for _ in range(connections)]
    for each in idle:
        await each.open()
    times = await ask(url, token, clients, requests)
    for each in idle:
        await each.close()
    return times


_COLOURS = sorted(COLOURS)


def rss_mb(server: Server) -> float:
    """Return the resident memory of the server, megabytes."""
    return float(psutil.Process(server.process.pid).memory_info().rss) / 1e6


def table(rows: Sequence[tuple[str, Times]]) -> Table:
    """Return the waiting, the engine's part, the rest of it, and processor time."""
    shown = Table(box=None)
    for column in ("asked by", "waited p50 / p95, ms", "engine", "above it", "processor ms each"):
        shown.add_column(column, justify="left" if column == "asked by" else "right")
    for name, times in rows:
        both = [
            " / ".join(f"{percentile(each, share):.1f}" for share in (50, 95))
            for each in (times.waited, times.engine, times.above)
        ]
        shown.add_row(name, *both, f"{times.processor_each:.1f}")
    return shown


def main(
    requests: Annotated[int, typer.Option(min=_CHUNK, help="Searches for the memory.")] = 10_000,
) -> None:
    """Print all figures."""
    with TemporaryDirectory(prefix="scanonce-bench-") as name:
        folder = Path(name)
        for number, colour in enumerate(_COLOURS[:_FILMS]):
            write_film(folder / "films" / f"{number}.mp4", [(colour, 8), ("black", 8)])
        console.print(f"{processor()}, {num_cores()} cores")
        with Library(folder / "index") as library:
            library.index([folder / "films"], encoder=BUNDLED_NAME)
            ask_directly(library, 4, _WARMING)
            direct = ask_directly(library, CLIENTS, _EACH)
            alone = ask_directly(library, 1, _EACH)
        token = Tokens(folder / "index").add("bench", ["read", "export"])
        print_command(folder / "index", "no server runs", 2)
        with Server(folder / "index", folder, command=("serve", "--api-only")) as server:
            ask_server(server, token, CLIENTS, _WARMING)
            one = ask_server(server, token, 1, _EACH)
            many = ask_server(server, token, CLIENTS, _EACH)
            idle = ask_server(server, token, 1, _EACH, IDLE)
            rows = [
                ("1 thread, no door", alone),
                ("1 client", one),
                (f"1 client, and {IDLE:,} idle", idle),
                (f"{CLIENTS} threads, no door", direct),
                (f"{CLIENTS} clients", many),
            ]
            console.print(table(rows))
            for what, over, under in (
                ("1 client : 1 thread", one, alone),
                (f"{CLIENTS} clients : {CLIENTS} threads", many, direct),
                ("with : without idle connections", idle, one),
            ):
                p50, p95 = (
                    percentile(over.waited, share) / percentile(under.waited, share)
                    for share in (50, 95)
                )
                costs = over.processor_each / under.processor_each
                console.print(f"{what}: waited p50 {p50:.2f}, p95 {p95:.2f}, processor {costs:.2f}")
            print_command(folder / "index", "a server answers", COMMANDS)
            print_downloads(server, token, one)
            print_memory(server, token, requests)


def print_command(root: Path, when: str, runs: int) -> None:
    """Print what `scanonce search` costs the client: processor time, and the wall time of the quietest run and p50."""
    command = [sys.executable, "-m", "scanonce.ui.cli", "search", "a red car", "--index", str(root)]
    walls, own = [], []
    for _ in range(runs):
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        walls.append(time.perf_counter() - begin)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        own.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    console.print(
        f"scanonce search, {when}: processor p50 {percentile(own, 50):.2f} s, wall {min(walls):.2f} s at best, "
        f"p50 {percentile(walls, 50):.2f} s, of {runs}"
    )


def print_downloads(server: Server, token: str, alone: Times) -> None:
    """Print how searches are answered during many downloads, cut first and then out of the cache."""
    process = psutil.Process(server.process.pid)
    for what in ("clips to cut", "clips that are cut"):
        got, times = asyncio.run(download(server.url, token, DOWNLOADS))
        p50, p95 = (
            percentile(times.waited, share) / percentile(alone.waited, share) for share in (50, 95)
        )
        console.print(
            f"{DOWNLOADS} downloads at once, {what}: {got.num_bytes / 1e6:.1f} MB in {got.seconds:.1f} s, "
            f"{got.refusals} times asked to wait; {got.searches} searches answered meanwhile, waited p50 "
            f"{p50:.2f}, p95 {p95:.2f} of alone; {process.num_fds()} file handles after"
        )


def print_memory(server: Server, token: str, requests: int) -> None:
    """Print the memory of the server after each thousand of searches."""
    memory = [rss_mb(server)]
    console.print(f"memory: {memory[0]:.0f} MB before")
    for number in range(1, requests // _CHUNK + 1):
        ask_server(server, token, 4, _CHUNK)
        memory.append(rss_mb(server))
        console.print(
            f"after {number * _CHUNK:,} searches {memory[-1]:.0f} MB, {memory[-1] / memory[1]:.3f} of that after the "
            f"first {_CHUNK:,}"
        )


if __name__ == "__main__":
    typer.run(main)
