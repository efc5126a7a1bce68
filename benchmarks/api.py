"""What the HTTP API costs above the search itself, how it holds idle connections, and whether its memory stays flat.

    python -m benchmarks.api [--requests 10000]

Five films of plain colours are indexed with the bundled encoder and served by `scanonce serve --api-only`, a process of
its own; the clients are coroutines of this one. Each answer has the time of the engine (``timings_ms.total``), so the
rest of the waiting is the door's: HTTP, JSON, the token, and queueing for a thread. At many clients all wait for the
cores, so the same searches are also asked by as many threads of this process without any door. Processor time does not
depend on other work of the machine. All figures are of one run.
"""

import asyncio
import json
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
from tests.ui_server import Server

CLIENTS = 20
IDLE = 1_000
_WARMING = 200
_EACH = 400
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
        self._head = (
            f"POST /api/v1/search HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
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
        self._writer.write(self._head.format(len(body)).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        content = await self._reader.readexactly(length)
        waited = 1e3 * (time.perf_counter() - begin)
        assert head.startswith("http/1.1 200"), (head, content)
        return waited, float(json.loads(content)["timings_ms"]["total"])


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
        for number, colour in enumerate(_COLOURS[:5]):
            write_film(folder / "films" / f"{number}.mp4", [(colour, 8), ("black", 8)])
        console.print(f"{processor()}, {num_cores()} cores")
        with Library(folder / "index") as library:
            library.index([folder / "films"], encoder=BUNDLED_NAME)
            ask_directly(library, 4, _WARMING)
            direct = ask_directly(library, CLIENTS, _EACH)
            alone = ask_directly(library, 1, _EACH)
        token = Tokens(folder / "index").add("bench", ["read"])
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
            print_memory(server, token, requests)


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
