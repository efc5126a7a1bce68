"""What was said and what is written in real videos: the quality of the answers.

    python -m benchmarks.lines VIDEOS

VIDEOS is a folder with videos and with SAID.tsv and WRITTEN.tsv, whose rows are ``filename start_s end_s query`` and,
in the first, a kind: ``words`` that are said, or the ``meaning`` of what is said. All videos are indexed with the
bundled encoder and all tracks are read by the product; a second run reads nothing again. An answer is right if its
first moment is in the right video and starts within 5 s of the truth. `benchmarks.line_costs` has what they cost,
`benchmarks.line_world` the rendered world.
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.material import BENCH, console, percentile, processor
from scanonce.library import Library
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.runtime import num_cores
from scanonce.models.settings import ModelSettings
from scanonce.models.tracks.settings import TrackSettings
from scanonce.search.grades import GOOD
from scanonce.search.result import SearchResult
from scanonce.storage.records import MadeTrack

AIMS = {"said, words": 0.95, "said, meaning": 0.75, "written": 0.95}
_PREFIXES = {"said, words": "said: ", "said, meaning": "said: ", "written": "written: "}
_NEAR_SECONDS = 5.0
_TRACKS: tuple[MadeTrack, ...] = ("subtitle", "said", "written")


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its right answer."""

    kind: str
    name: str
    start_seconds: float
    query: str


def read_questions(folder: Path) -> list[Question]:
    """Return the queries of both files."""
    questions = []
    for file, kind in (("SAID.tsv", "said, "), ("WRITTEN.tsv", "written")):
        with (folder / file).open(newline="", encoding="utf-8") as content:
            for row in csv.DictReader(content, delimiter="\t"):
                name = kind + (row["kind"] if file == "SAID.tsv" else "")
                start = float(row["start_s"])
                questions.append(Question(name, row["filename"], start, row["query"]))
    return questions


def rank_of(question: Question, result: SearchResult) -> int | None:
    """Return the position of the right moment, from 1 on; None if it is not there."""
    for position, moment in enumerate(result.moments, start=1):
        apart = abs(moment.span.start_seconds - question.start_seconds)
        if moment.path.name == question.name and apart <= _NEAR_SECONDS:
            return position
    return None


def quality_table(questions: Sequence[Question], library: Library, *, restricted: bool) -> Table:
    """Ask all questions, of all channels or of the right one; print each that is answered wrongly."""
    asked = "the channel alone" if restricted else "all channels"
    table = Table(title=f"the right moment first, {asked}", box=None)
    for column in ("track", "queries", "first", "in the first 3", "aim", "p50 of all stages, ms"):
        table.add_column(column, justify="left" if column == "track" else "right")
    for kind, aim in AIMS.items():
        prefix = _PREFIXES[kind] if restricted else ""
        ranks, times = [], []
        for question in [each for each in questions if each.kind == kind]:
            result = library.search(prefix + question.query)
            rank = rank_of(question, result)
            ranks.append(rank)
            times.append(result.timings_ms["total"])
            if rank != 1:
                best = result.moments[0] if result.moments else None
                where = f"{best.path.name} {best.span.start_seconds:.1f} s" if best else "nothing"
                console.print(
                    f"{kind}: {question.query!r} of {question.name} {question.start_seconds} s is "
                    f"{rank or 'not there'}; the first is {where}",
                    highlight=False,
                    markup=False,
                )
        first = sum(rank == 1 for rank in ranks)
        third = sum(rank is not None and rank <= 3 for rank in ranks)
        table.add_row(
            kind,
            str(len(ranks)),
            f"{first / len(ranks):.2f}",
            f"{third / len(ranks):.2f}",
            f">= {aim}: {'met' if first / len(ranks) >= aim else 'missed'}",
            f"{percentile(times, 50):.1f}",
        )
    return table


def weak_table(folder: Path, library: Library) -> str:
    """Return how many descriptions of images have a good match by words, which would be wrong."""
    with (folder / "SEEN.tsv").open(newline="", encoding="utf-8") as content:
        queries = [row["query"] for row in csv.DictReader(content, delimiter="\t")]
    wrong = 0
    for query in queries:
        reasons = [each for found in library.search(query).moments for each in found.reasons]
        wrong += any(each.channel != "seen" and each.value >= GOOD for each in reasons)
    return f"{wrong} of {len(queries)} descriptions of images have a good match by words"


def main(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, SAID.tsv and WRITTEN.tsv.")],
    index_dir: Annotated[Path | None, typer.Option("--index", help="An index to keep.")] = None,
) -> None:
    """Print the quality of lines."""
    BENCH.mkdir(exist_ok=True)
    console.print(f"{processor()}, {num_cores()} cores")
    root = index_dir or BENCH / "lines"
    models, tracks = ModelSettings(encoder=BUNDLED_NAME), TrackSettings()
    with Library(root, models=models, tracks=tracks) as library:
        library.index([videos])
        for track in _TRACKS:
            started = time.perf_counter()
            report = library.make_tracks([track])
            if report.made.get(track):
                took = time.perf_counter() - started
                console.print(f"{track}: {report.made[track]} videos read in {took:.0f} s")
            if report.num_pictures:
                frames = sum(video.num_frames for video in library.engine.videos.values())
                console.print(f"text was read of {report.num_pictures} of {frames} stored frames")
        for restricted in (False, True):
            table = quality_table(read_questions(videos), library, restricted=restricted)
            console.print(table)
        console.print(weak_table(videos, library))


if __name__ == "__main__":
    typer.run(main)
