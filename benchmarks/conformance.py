"""Every family of encoders from index to search, with tiny random weights and the real tokenizer classes.

    python -m benchmarks.conformance

One row a family: ok, or the sentence of refusal. No figure here says anything about quality: the weights are random.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

import scanonce
from benchmarks.material import console
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


def results_table(found: list[Row]) -> Table:
    """Return the table, one row a family."""
    table = Table(title="Encoders from index to search (tiny random weights)", box=None)
    for column in ("family", "published", "dim", "result"):
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(row.name or "-", row.published, str(row.dim or "-"), row.result)
    return table


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for row in rows(Path(folder)):
            console.print(f"{row.published}: {row.result[:60]}", style="dim")
            found.append(row)
    console.print(results_table(found))
    if any(row.name and row.result != "ok" for row in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
