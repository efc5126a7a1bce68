"""The vector index: recall, CPU time and memory, compared with exact search and with other indexes.

    python -m benchmarks.vectors                          all tables: 10,000, 100,000 and a million clips
    python -m benchmarks.vectors --clips 10000000 --tables size --tables opening --no-peers

Embeddings are drawn (`benchmarks.embeddings`). Each index is built in one process and searched in another; all compared
indexes stay open and are searched in turns, in three rounds. Time is the CPU time of one query: of the thread that
answers, or of the whole process if an index answers on its own threads. Other indexes are installed from PyPI into
separate environments below ``bench/``; one that cannot be installed, or takes longer to build than a cap, is left out
and named. A million clips need 15 GB of disk and 12 of memory, and about an hour of two cores; with ``--keep`` a later
call of the table of sizes uses the indexes of an earlier one. Ten millions need 30 GB of disk.
"""

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks import vector_peers, vector_tables
from benchmarks.embeddings import (
    DIM,
    Statistic,
    World,
    matrix_of,
    picture_statistics,
    text_statistics,
    videos_for,
)
from benchmarks.material import BENCH, console, percentile, processor
from benchmarks.vector_ours import Exact, Ours, OursTuned, best_rows, published_folder
from benchmarks.vector_worker import Remote, WorkerFailed
from scanonce.models.runtime import num_cores

FOLDER = BENCH / "vectors"
ROUNDS = 3
BUILD_CAP_SECONDS = 3_600
"""Cap of the CPU time for building another index."""
NUM_TEXTS, NUM_PICTURES, NUM_TUNING_TEXTS = 300, 100, 512
COPIED_CLIPS = 2_000_000
"""Number of clips up to which the exact index, a copy in memory, is compared."""

AIMED_CLIPS = 1_000_000
AIM_RECALL, AIM_CPU, AIM_MEMORY, AIM_EXACT = 0.98, 10.0, 8.0, 30.0

TableName = Literal["size", "batch", "filters", "drift", "opening", "growth"]
TABLES: tuple[TableName, ...] = ("size", "batch", "filters", "drift", "opening", "growth")

_MEMORY = "memory after opening and 50 queries: private, and pages of files, which the system may take back"
_OURS = "benchmarks.vector_ours"
_PEERS = "benchmarks.vector_peers"


# ------------------------------------------------ the others


def peers_pythons() -> dict[str, str]:
    """Return the interpreter of each environment with other indexes; create missing environments."""
    names = vector_peers.ENVIRONMENTS
    return {name: _python_with(FOLDER / name, packages) for name, packages in names.items()}


def _python_with(folder: Path, packages: Sequence[str]) -> str:
    python, installed = str(folder / "bin" / "python"), folder / "installed.json"
    if installed.exists():
        return python
    with console.status("installing the other indexes") as status:
        venv.create(folder, with_pip=True)
        outcome = {}
        for package in packages:
            status.update(f"installing {package}")
            command = [python, "-m", "pip", "install", "--quiet", package]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            outcome[package] = done.returncode == 0
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                console.print(
                    f"{package} cannot be installed: {lines[-1] if lines else 'no message'}"
                )
    installed.write_text(json.dumps(outcome), encoding="utf-8")
    return python


def versions(pythons: dict[str, str]) -> str:
    """Return names and versions of the other indexes that are installed."""
    found = []
    for environment, packages in vector_peers.ENVIRONMENTS.items():
        command = [pythons[environment], "-m", "pip", "list", "--format", "json"]
        listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        known = {each["name"].lower(): each["version"] for each in listed}
        names = [package.partition("<")[0] for package in packages]
        found += [f"{name} {known[name]}" for name in names if name in known]
    return ", ".join(found)


# ------------------------------------------------ one size


@dataclass
class Material:
    """Clips of one size, and the queries for them."""

    clips: NDArray[np.float16]
    path: Path
    texts: NDArray[np.float32]
    pictures: NDArray[np.float32]
    folder: Path

    @classmethod
    def of(cls, num_clips: int, world: World, path: Path) -> "Material":
        """Map the clips from the file at ``path``; draw queries."""
        num_videos = videos_for(num_clips)
        clips = matrix_of(path, world, num_videos)
        folder = FOLDER / str(num_clips)
        folder.mkdir(parents=True, exist_ok=True)
        texts, pictures = world.texts(num_videos, NUM_TEXTS), world.pictures(NUM_PICTURES)
        np.save(folder / "texts.npy", texts)
        np.save(folder / "pictures.npy", pictures)
        np.save(folder / "tuning.npy", world.texts(num_videos, NUM_TUNING_TEXTS, seed=2))
        return cls(clips, path, texts, pictures, folder)

    @property
    def arguments(self) -> dict[str, Any]:
        """Parameters by which a worker finds the clips."""
        return {"clips": str(self.path), "rows": len(self.clips), "dim": DIM}


@dataclass
class Subject:
    """An index that is open in another process, at one effort."""

    name: str
    remote: Remote
    effort: int
    built: dict[str, float]
    opened: dict[str, float]
    p50_ms: list[float] = field(default_factory=list)
    """A value for each round, as in the following fields."""
    p99_ms: list[float] = field(default_factory=list)
    batch_per_second: list[float] = field(default_factory=list)
    batch_per_cpu_second: list[float] = field(default_factory=list)
    found: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Rows ``[num_queries, 100]`` by kind of query."""

    def ask(self, material: Material, kind: str) -> list[float]:
        """Ask all queries of a kind one by one; return the CPU milliseconds of each."""
        answers = material.folder / "answers.npy"
        times: list[float] = self.remote.do(
            "ask",
            queries=str(material.folder / f"{kind}.npy"),
            k=100,
            effort=self.effort,
            answers=str(answers),
        )["cpu_ms"]
        self.found[kind] = np.load(answers)
        return times

    def ask_round(self, material: Material) -> None:
        """Run one round: all queries alone, then the texts at once."""
        times = self.ask(material, "texts") + self.ask(material, "pictures")
        self.p50_ms.append(percentile(times, 50))
        self.p99_ms.append(percentile(times, 99))
        queries = str(material.folder / "texts.npy")
        took = self.remote.do("batch", queries=queries, k=100, effort=self.effort)
        self.batch_per_second.append(took["queries"] / took["wall_seconds"])
        self.batch_per_cpu_second.append(took["queries"] / took["cpu_seconds"])


def recall(found: NDArray[np.int64], truth: NDArray[np.int64], k: int) -> float:
    """Return the share of the ``k`` best rows of each query, ``[num_queries, >= k]``, among the first ``k`` found."""
    pairs = zip(found[:, :k].tolist(), truth[:, :k].tolist(), strict=True)
    return float(np.mean([len({*rows} & {*best}) / k for rows, best in pairs]))


def start(
    python: str, module: str, name: str, material: Material, stack: ExitStack, *, keep: bool
) -> Subject:
    """Build an index, unless an earlier run kept it, and open it; it is closed with the stack.

    Raises:
        WorkerFailed: it cannot be built within the cap, or opened.
    """
    folder = material.folder / name.replace(" ", "-")
    log = folder.with_suffix(".log")
    if name == Ours.name:
        folder = published_folder(FOLDER, len(material.clips))
    record = log.with_suffix(".json")
    with console.status(f"{len(material.clips):,} clips: building {name}"):
        if keep and record.exists():
            built = json.loads(record.read_text(encoding="utf-8"))
        else:
            record.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            with Remote(python, module, name, log) as builder:
                if module == _PEERS:
                    builder.limit(BUILD_CAP_SECONDS)
                built = builder.do("build", folder=str(folder), **material.arguments)
            record.write_text(json.dumps(built), encoding="utf-8")
        remote = stack.enter_context(Remote(python, module, name, log))
        queries = str(material.folder / "texts.npy")
        opened = remote.do("open", folder=str(folder), queries=queries, **material.arguments)
    return Subject(name, remote, 0, built, opened)


def with_efforts(peer: Subject, target: float, material: Material, truth: Any) -> list[Subject]:
    """Return the peer at the effort to be compared; FAISS's HNSW at two.

    It is the least effort that reaches our recall, or the largest within the peer's time limit. FAISS's is also raised
    to our recall whatever the cost, and set to the time limit as autofaiss does.
    """
    if not peer.remote.efforts:
        return [peer]
    climbed = []
    for effort in peer.remote.efforts:
        peer.effort = effort
        time_ms = median(peer.ask(material, "texts"))
        climbed.append((effort, recall(peer.found["texts"], truth["texts"], 10), time_ms))
        if climbed[-1][1] >= target and time_ms > peer.remote.within_ms / 2:
            break
    cheap = [effort for effort, _, time_ms in climbed if time_ms <= peer.remote.within_ms]
    last_cheap = cheap[-1] if cheap else climbed[0][0]
    reaching = [effort for effort, found, _ in climbed if found >= target]
    if peer.name != vector_peers.FaissHnsw.name:
        return [at_effort(peer, min([*reaching[:1], last_cheap]))]
    equal = reaching[0] if reaching else climbed[-1][0]
    return [at_effort(peer, effort) for effort in sorted({equal, last_cheap})]


def at_effort(peer: Subject, effort: int) -> Subject:
    """Return the same index with another effort."""
    return Subject(peer.name, peer.remote, effort, peer.built, peer.opened)


def measure(
    material: Material,
    truth: dict[str, NDArray[np.int64]],
    stack: ExitStack,
    pythons: dict[str, str],
    only: Sequence[str],
    *,
    keep: bool,
) -> list[Subject]:
    """Measure our index, the exact one and the others, or only the named ones, in turns."""
    own = [Ours.name, OursTuned.name]
    if len(material.clips) <= COPIED_CLIPS:
        own.append(Exact.name)
    subjects = [start(sys.executable, _OURS, name, material, stack, keep=keep) for name in own]
    subjects[0].ask(material, "texts")
    target = recall(subjects[0].found["texts"], truth["texts"], 10)
    for peer in vector_peers.PEERS if pythons else ():
        if only and peer.name not in only:
            continue
        name = peer.name
        if len(material.clips) > 1.01 * peer.largest:
            console.print(f"{name} is left out at this size: it is measured up to {peer.largest:,}")
            continue
        try:
            python = pythons[peer.environment]
            started = start(python, _PEERS, name, material, stack, keep=keep)
            with console.status(f"{len(material.clips):,} clips: how hard {name} must try"):
                subjects += with_efforts(started, target, material, truth)
        except WorkerFailed as error:
            console.print(f"{name} is left out (cap: {BUILD_CAP_SECONDS} CPU s): {error}")
    with console.status("asking"):
        for _ in range(ROUNDS):
            for subject in subjects:
                subject.ask_round(material)
    return subjects


# ------------------------------------------------ printing


def size_table(
    material: Material, subjects: Sequence[Subject], truth: dict[str, NDArray[np.int64]]
) -> Table:
    """Print one line for each index."""
    num_clips = len(material.clips)
    table = Table(title=f"{num_clips:,} clips", box=None, caption=_MEMORY)
    table.add_column("index")
    columns = (
        "effort",
        "text @10/@100",
        "picture @10/@100",
        "CPU ms p50",
        "p99",
        "batch q/s",
        "q/CPU s",
        "B/clip own",
        "mapped",
        "disk",
        "build CPU s",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for each in subjects:
        recalls = [
            "/".join(f"{recall(each.found[kind], truth[kind], k):.3f}" for k in (10, 100))
            for kind in ("texts", "pictures")
        ]
        table.add_row(
            each.name,
            effort_of(each),
            *recalls,
            f"{median(each.p50_ms):.2f}",
            f"{median(each.p99_ms):.2f}",
            f"{median(each.batch_per_second):.0f}",
            f"{median(each.batch_per_cpu_second):.0f}",
            f"{each.opened['own_bytes'] / num_clips:.0f}",
            f"{each.opened['mapped_bytes'] / num_clips:.0f}",
            f"{each.built['disk_bytes'] / num_clips:.0f}",
            build_cost(each.built),
        )
    return table


def effort_of(subject: Subject) -> str:
    """Return its effort, or the one it chose; for a tuned library of ours, lists and candidates."""
    if "nprobe" in subject.built:
        return f"{subject.built['nprobe']:.0f}/{subject.built['rescore_depth']:.0f}"
    return f"{subject.effort or subject.built.get('effort', 0):.0f}".removeprefix("0")


def build_cost(built: dict[str, float]) -> str:
    """Return CPU seconds, with the part spent on adding if it is known."""
    total = built["cpu_seconds"]
    if not built.get("add_cpu_seconds"):
        return f"{total:.1f}"
    return f"{total - built['add_cpu_seconds']:.1f} + {built['add_cpu_seconds']:.1f}"


def aim_lines(subjects: Sequence[Subject], truth: NDArray[np.int64]) -> list[str]:
    """Print the aims at a million clips; ``truth``: the best rows of the texts."""
    by_name = {each.name: each for each in subjects}
    ours = by_name[Ours.name]

    def text_recall(subject: Subject) -> float:
        return recall(subject.found["texts"], truth, 10)

    def times_cpu(subject: Subject) -> float:
        return median(subject.p50_ms) / median(ours.p50_ms)

    def times_memory(subject: Subject, *kinds: str) -> float:
        theirs, own = (sum(s.opened[f"{k}_bytes"] for k in kinds) for s in (subject, ours))
        return theirs / own

    lines = [line("text recall@10", text_recall(ours), AIM_RECALL)]
    if exact := by_name.get(Exact.name):
        lines.append(line("exact / ours, CPU", times_cpu(exact), AIM_EXACT))
    names = (vector_peers.FaissHnsw.name, vector_peers.Autofaiss.name)
    for hnsw in (each for each in subjects if each.name in names):
        effort = f"{hnsw.name} with ef {effort_of(hnsw)}"
        label = f"{effort} (text recall@10 {text_recall(hnsw):.3f}) / ours"
        lines += [
            line(f"{label}, CPU", times_cpu(hnsw), AIM_CPU),
            line(f"{label}, own memory", times_memory(hnsw, "own"), AIM_MEMORY),
            line(f"{label}, with mapped files", times_memory(hnsw, "own", "mapped"), AIM_MEMORY),
        ]
    if lance := by_name.get(vector_peers.Lancedb.name):
        gained = text_recall(ours) - text_recall(lance)
        lines += [
            line("text recall@10, ours - lancedb IVF_PQ", gained, 0.0),
            line("lancedb IVF_PQ / ours, CPU", times_cpu(lance), 1.0),
        ]
    return lines


def line(label: str, value: float, aim: float) -> str:
    """Print one figure and whether it meets the aim."""
    return f"{label}: {value:.3g}; aim >= {aim:g}: {'met' if value >= aim else 'missed'}"


def statistics_table(statistics: Sequence[Statistic]) -> Table:
    """Print the stated and the drawn statistics."""
    table = Table(title="the embeddings, as stated and as drawn", box=None)
    table.add_column("figure")
    for column in ("stated", "drawn"):
        table.add_column(column, justify="right")
    for each in statistics:
        table.add_row(each.name, f"{each.stated:g}", f"{each.measured:.3g}")
    return table


# ------------------------------------------------ the command


def compare(
    sizes: Sequence[int], pythons: dict[str, str], only: Sequence[str], *, keep: bool
) -> None:
    """Print the table of each size, and the aims after the last; without other indexes if there is no interpreter."""
    world, path = World(), clips_file(max(sizes))
    described = picture_statistics(matrix_of(path, world, videos_for(max(sizes[-1], 100_000))))
    for size in sizes:
        material = Material.of(size, world, path)
        with console.status(f"{len(material.clips):,} clips: exact answers"):
            truth = {
                "texts": best_rows(material.clips, material.texts, 100),
                "pictures": best_rows(material.clips, material.pictures, 100),
            }
        described += text_statistics(material.clips, material.texts, truth["texts"])
        console.print(statistics_table(described))
        described = []
        with ExitStack() as stack:
            subjects = measure(material, truth, stack, pythons, only, keep=keep)
        console.print(size_table(material, subjects, truth))
        if size >= AIMED_CLIPS:
            console.print("\n".join(aim_lines(subjects, truth["texts"])))
        if not keep:
            shutil.rmtree(material.folder)


def clips_file(num_clips: int) -> Path:
    """Return the path of the clips of a run."""
    return FOLDER / f"clips-{max(num_clips, 100_020)}.f16"


def main(
    clips: Annotated[
        list[int] | None, typer.Option(help="Clips of each library; may be repeated.")
    ] = None,
    tables: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(TABLES)}; may be repeated. All.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Compare with indexes from PyPI.")] = True,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"Only with this one of {', '.join(vector_peers.METHODS)}; repeatable."),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            help="Keep the indexes built for the table of sizes, and use those that were kept."
        ),
    ] = False,
) -> None:
    """Print recall, cost and memory of the vector index in drawn libraries."""
    sizes = sorted(clips or [10_000, 100_000, 1_000_000])
    wanted = tables or [*TABLES]
    if unknown := {*wanted} - {*TABLES}:
        raise typer.BadParameter(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    console.print(f"{processor()}, {num_cores()} cores; {DIM} dimensions")
    if "size" in wanted:
        pythons = peers_pythons() if peers else {}
        if pythons:
            console.print(versions(pythons))
        compare(sizes, pythons, peer or [], keep=keep)
    library = vector_tables.Libraries(FOLDER, World(), clips_file(max(sizes)))
    if "batch" in wanted:
        vector_tables.print_batch(library, sizes)
    if "filters" in wanted:
        vector_tables.print_filters(library, max(sizes))
    if "drift" in wanted:
        vector_tables.print_drift(FOLDER)
    if "opening" in wanted:
        vector_tables.print_opening(library, sizes)
    if "growth" in wanted:
        vector_tables.print_growth(library, max(sizes))


if __name__ == "__main__":
    typer.run(main)
