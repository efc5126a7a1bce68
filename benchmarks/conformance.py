"""Every family of encoders from index to search, with tiny random weights and the real tokenizer classes.

    python -m benchmarks.conformance
    python -m benchmarks.conformance --only-refusal

One row a family: ok, or the sentence of refusal. No figure here says anything about quality: the weights are random.
The last lines are the time in which `scanonce index` refuses an encoder of the size of ViT-B/32 that lacks its
tokenizer, beside the time that Python takes to import torch and transformers.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import scanonce
from benchmarks.material import console, median, vit_b_32
from benchmarks.tiny_encoders import FAMILIES, make_encoder
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import ScanonceError
from tests.colours import write_film

FILM = (("red", 4.0), ("blue", 4.0))
QUERY = "a Red car at night"
REFUSED: dict[str, dict[str, Any]] = {
    "facebook/pe-av-small": {"model_type": "pe_audio_video"},
    "jinaai/jina-clip-v2": {"model_type": "jina_clip", "auto_map": {"AutoModel": "own.Own"}},
    "OpenGVLab/InternVideo2-Stage2_6B": {
        "model_type": "internvideo2",
        "auto_map": {"AutoModel": "own.Own"},
    },
    "timm/PE-Core-B-16": {},
}
"""Checkpoints that are refused, with what matters of their config.json; an empty one: a folder of open_clip."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a family."""

    name: str
    published: str
    dim: int | None
    """Width of the joint space of the tiny checkpoint; None if it was refused."""
    result: str
    """``ok``, or the error."""


def rows(work: Path) -> Iterator[Row]:
    """Yield the row of each family, then those of the refused checkpoints."""
    film = write_film(work / "films/film.mp4", FILM)
    for name in FAMILIES:
        yield run(name, work, film)
    for name in REFUSED:
        yield refuse(name, work)


def run(name: str, work: Path, film: Path) -> Row:
    """Index a film with the tiny checkpoint of a family and search it."""
    folder = make_encoder(name, work / name)
    published = FAMILIES[name].published
    try:
        with scanonce.open(
            work / f"{name}-index", models=ModelSettings(encoder=str(folder), dtype="float32")
        ) as library:
            report = library.index([film])
            answer = library.search(QUERY)
            manifest = library.manifest
    except ScanonceError as error:
        return Row(name, published, None, str(error))
    assert manifest is not None
    found = report.counts.indexed == 1 and len(answer.moments) > 0
    return Row(name, published, manifest.dim, "ok" if found else "nothing is found")


def refuse(published: str, work: Path) -> Row:
    """Index with a checkpoint that is refused."""
    folder = work / published.replace("/", "_")
    folder.mkdir()
    config = REFUSED[published]
    if config:
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").touch()
    else:
        (folder / "open_clip_config.json").write_text("{}")
        (folder / "open_clip_model.safetensors").touch()
    try:
        with scanonce.open(
            work / f"{folder.name}-index", models=ModelSettings(encoder=str(folder))
        ) as library:
            library.index([work])
    except ScanonceError as error:
        return Row("", published, None, str(error).replace(str(folder), folder.name))
    return Row("", published, None, "was not refused")


_ROUNDS = 3
_IMPORTS = "import torch; from transformers import CLIPModel"


@dataclass(frozen=True, slots=True)
class Took:
    """What a program took: seconds on the clock, and processor seconds."""

    wall: float
    cpu: float


def time_refusal(work: Path) -> dict[str, list[Took]]:
    """Run, in turn, the imports alone, ``--version``, and ``index`` with an encoder without a tokenizer.

    Raises:
        RuntimeError: the encoder was not refused, or for another reason.
    """
    encoder, index = work / "no-tokenizer", work / "refused"
    encoder.mkdir()
    for path in vit_b_32().iterdir():
        if not path.name.startswith(("tokenizer", "special_tokens")):
            (encoder / path.name).symlink_to(path)
    command = [sys.executable, "-m", "scanonce.ui.cli"]
    calls = {
        "imports": ([sys.executable, "-c", _IMPORTS], 0),
        "scanonce --version": ([*command, "--version"], 0),
        "refusal": (
            [*command, "index", str(work), "--encoder", str(encoder), "--index", str(index)],
            1,
        ),
    }
    took: dict[str, list[Took]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, (call, code) in calls.items():
            took[name].append(
                _run(call, code, "Its tokenizer does not belong to it" if code else "")
            )
    return took


def _run(command: Sequence[str], code: int, says: str) -> Took:
    """Run a program that must end with this exit code and say this."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    before, start = _cpu_of_children(), time.perf_counter()
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = Took(time.perf_counter() - start, _cpu_of_children() - before)
    if ran.returncode != code or says not in ran.stderr:
        raise RuntimeError(f"{command} ended with {ran.returncode}: {ran.stderr[-500:]}")
    return took


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def refusal_table(took: dict[str, list[Took]]) -> Table:
    """Return the medians of `time_refusal`, and the refusal as a multiple of the imports."""
    table = Table(title="A night's mistake: index with an encoder without a tokenizer", box=None)
    for column in ("program", "s", "processor s", "imports = 1"):
        table.add_column(column)
    walls = {name: median([each.wall for each in rounds]) for name, rounds in took.items()}
    for name, rounds in took.items():
        cpu = median([each.cpu for each in rounds])
        ratio = walls[name] / walls["imports"]
        table.add_row(name, f"{walls[name]:.1f}", f"{cpu:.1f}", f"{ratio:.2f}")
    return table


def results_table(found: list[Row]) -> Table:
    """Return the table, one row a family."""
    table = Table(title="Encoders from index to search (tiny random weights)", box=None)
    for column in ("family", "published", "dim", "result"):
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(row.name or "-", row.published, str(row.dim or "-"), row.result)
    return table


def main(
    only_refusal: Annotated[bool, typer.Option(help="Time the refusal, and nothing else.")] = False,
) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for row in () if only_refusal else rows(Path(folder)):
            console.print(f"{row.published}: {row.result[:60]}", style="dim")
            found.append(row)
        took = time_refusal(Path(folder))
    if found:
        console.print(results_table(found))
    console.print(refusal_table(took))
    if any(row.name and row.result != "ok" for row in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
