"""What the encoder "concepts" finds in real videos, and how fast it is.

    python -m benchmarks.concepts                 # indexes the videos, asks, prints the table of docs/encoders.md
    python -m benchmarks.concepts --choose        # framing, texts, temperature and number of classes compared

The first goes through the product: `scanonce.Library` indexes the folder, its search engine answers. The sentences are
those of ``SEEN.tsv`` (one for each of 19 videos) and ``MOMENTS.tsv`` (11 spans) in the folder of the videos. The
constants of the encoder were chosen by ``--choose`` on the same 19 sentences, so R@1 and R@5 flatter it a little; no
moment was used to choose.
"""

import csv
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.material import BENCH, console, median, processor, vit_b_32
from scanonce.indexer.settings import IndexerSettings
from scanonce.library import Library
from scanonce.media.answers import Frames
from scanonce.media.child import DecodeRequest
from scanonce.media.sampling import Sampling
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.concepts import STEPS, mix_classes, read_network
from scanonce.models.encoders.concepts_recipe import class_texts, concepts_fingerprint
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.offline_weights import CONCEPTS_NAME
from scanonce.models.runtime import use_one_thread
from scanonce.models.sentences import SentenceModel, packed_files
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.search.bank import abstract_texts, bank
from scanonce.search.grades import GOOD
from scanonce.storage.records import Moment, Span

VIDEOS = Path(__file__).resolve().parents[2] / "shared/data/videos"
_TOP = 200  # moments of an answer: enough that every video has one
_MIN_TIOU = 0.3
_CLIP_FRAMES = 4

FRAMINGS = {
    "middle square": STEPS,
    "squeezed": Preprocessing(None, STEPS.output_size, None, "bicubic", STEPS.mean, STEPS.std),
    # 16:9 fits into the square: the rest is black
    "padded": Preprocessing(146, None, STEPS.output_size, "bicubic", STEPS.mean, STEPS.std),
}
TEMPERATURES = (1.0, 1.3, 1.6)
TOPS = (10, 20, 50)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with the name of the video that it is about, and the span if it has one."""

    text: str
    video: str
    span: Span | None = None


def read_sentences(path: Path) -> list[Sentence]:
    """Read SEEN.tsv or MOMENTS.tsv."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Sentence(
                row["query"],
                row["filename"],
                Span(float(row["start_s"]), float(row["end_s"])) if "start_s" in row else None,
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


# ------------------------------------------------ through the product


def measure(folder: Path, index: Path) -> Table:
    """Index the folder and return the table of figures."""
    settings = ModelSettings(encoder=CONCEPTS_NAME)
    table = Table(title=f"concepts, {processor()}", box=None)
    table.add_column("figure")
    table.add_column("value", justify="right")
    with Library(index, models=settings) as library:
        library.index([folder])
        seen = read_sentences(folder / "SEEN.tsv")
        answers = library.search_many([each.text for each in seen], top=_TOP)
        ranks = [
            rank_of(each.video, answer.moments) for each, answer in zip(seen, answers, strict=True)
        ]
        of = f"{len(seen)} sentences over {library.engine.num_videos} videos"
        for depth in (1, 5):
            share = np.mean([rank < depth for rank in ranks])
            table.add_row(f"R@{depth} of the right video, {of}", f"{share:.2f}")
        table.add_row(f"the same by chance, R@1 and R@5, {of}", _by_chance(library))
        moments = read_sentences(folder / "MOMENTS.tsv")
        hits = [_finds(each, library) for each in moments]
        table.add_row(
            f"R@1@{_MIN_TIOU} of a span in its video, {len(moments)} spans",
            f"{np.mean(hits):.2f}",
        )
        good = [not answer.no_good_match for answer in answers]
        table.add_row(f"answered with {GOOD:.0%} or more, {of}", f"{np.mean(good):.2f}")
        nonsense = library.search_many(abstract_texts())
        refused = [answer.no_good_match for answer in nonsense]
        table.add_row(
            f"refused, {len(nonsense)} texts that no image can show", f"{np.mean(refused):.2f}"
        )
    return table


def rank_of(video: str, moments: Sequence[Moment]) -> int:
    """Return the number of other videos before the first moment of a video; the number of all if it has none."""
    names = list(dict.fromkeys(moment.path.name for moment in moments))
    return names.index(video) if video in names else len(names)


def _by_chance(library: Library) -> str:
    return ", ".join(f"{depth / library.engine.num_videos:.2f}" for depth in (1, 5))


def _finds(sentence: Sentence, library: Library) -> bool:
    """Whether the first moment in the right video overlaps the span enough."""
    ids = {
        each.video_id for each in library.engine.videos.values() if each.path.name == sentence.video
    }
    answer = library.search(sentence.text, top=1, within=ids)
    assert sentence.span is not None
    return bool(answer.moments) and answer.moments[0].span.tiou(sentence.span) >= _MIN_TIOU


# ------------------------------------------------ speed


def compare_speed(rounds: int = 6) -> Table:
    """Frames per CPU second of one thread beside ViT-B/32 with random weights, in turns on frames of their sizes."""
    table = Table(title="one thread, number format as chosen for this machine", box=None)
    table.add_column("encoder")
    table.add_column("frames/CPU s", justify="right")
    rng = np.random.default_rng(0)
    encoders = {
        "ViT-B/32": load_encoder(str(vit_b_32()), ModelSettings(device="cpu"), towers="vision"),
        CONCEPTS_NAME: load_encoder(CONCEPTS_NAME, ModelSettings(device="cpu"), towers="vision"),
    }
    frames = {
        name: rng.integers(
            0, 256, (each.batch_frames, *each.preprocessing.output_size, 3), np.uint8
        )
        for name, each in encoders.items()
    }
    took: dict[str, list[float]] = {name: [] for name in encoders}
    for _, (name, each) in itertools.product(range(rounds + 1), encoders.items()):
        begin = time.thread_time()
        each.encode_frames(frames[name])
        took[name].append((time.thread_time() - begin) / len(frames[name]))
    speeds = {name: 1 / median(each[1:]) for name, each in took.items()}
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:.1f}")
    table.add_row("ratio", f"{speeds[CONCEPTS_NAME] / speeds['ViT-B/32']:.2f}")
    return table


# ------------------------------------------------ choosing


def choose(folder: Path) -> Table:
    """Compare framings, texts, temperatures and numbers of classes on SEEN.tsv, without an index."""
    seen = read_sentences(folder / "SEEN.tsv")
    model = SentenceModel(packed_files(), torch.device("cpu"), torch.float32)
    queries = model.embed([each.text for each in seen])
    everyday = model.embed(bank()).mean(axis=0)
    texts = {
        "name: description": model.embed(class_texts()),
        "name": model.embed([text.split(": ")[0] for text in class_texts()]),
    }
    table = Table(title=f"{len(seen)} sentences of SEEN.tsv", box=None)
    for column in ("framing", "class text", "centred", "temperature", "classes"):
        table.add_column(column)
    for column in ("R@1", "R@5", "MRR"):
        table.add_column(column, justify="right")
    for framing, steps in FRAMINGS.items():
        logits = _logits(folder, steps)
        for (name, classes), is_centred in itertools.product(texts.items(), (True, False)):
            used = unit(classes - classes.mean(axis=0)) if is_centred else classes
            asked = unit(queries - everyday) if is_centred else queries
            for temperature, top in itertools.product(TEMPERATURES, TOPS):
                ranks = _ranks(seen, asked, logits, used, temperature, top)
                table.add_row(
                    framing,
                    name,
                    "yes" if is_centred else "no",
                    f"{temperature}",
                    f"{top}",
                    f"{(ranks < 1).mean():.2f}",
                    f"{(ranks < 5).mean():.2f}",
                    f"{(1 / (ranks + 1)).mean():.3f}",
                )
    return table


def _logits(folder: Path, steps: Preprocessing) -> dict[str, torch.Tensor]:
    """Logits ``[num_frames, 1000]`` of every video, a frame every two seconds."""
    use_one_thread()
    network = read_network()
    request = DecodeRequest(Sampling("uniform", 0.5), "pyav", steps, 60.0, None)
    paths = sorted(path for path in folder.iterdir() if path.suffix in IndexerSettings().endings)
    parts: dict[str, list[torch.Tensor]] = {}
    with DecodePool(request, workers=1) as pool, torch.inference_mode():
        for event in pool.decode(paths):
            if isinstance(event, Frames):
                pixels = steps.normalise(torch.from_numpy(event.images.copy()), torch.float32)
                parts.setdefault(paths[event.job].name, []).append(network(pixels))
    return {name: torch.cat(each) for name, each in parts.items()}


def _ranks(
    seen: Sequence[Sentence],
    queries: NDArray[np.float32],
    logits: dict[str, torch.Tensor],
    classes: NDArray[np.float32],
    temperature: float,
    top: int,
) -> NDArray[np.int64]:
    """Number of videos before the right one, for each sentence; a video counts by its best clip."""
    vectors = torch.from_numpy(classes)
    best = []
    for each in logits.values():
        mixed = mix_classes(each, vectors, top=top, temperature=temperature)
        clips = np.stack([unit(clip.mean(axis=0)) for clip in _clips(unit(mixed.numpy()))])
        best.append((clips @ queries.T).max(axis=0))
    cosines, names = np.stack(best), list(logits)  # [num_videos, num_sentences]
    right = np.array([names.index(each.video) for each in seen])
    own = cosines[right, np.arange(len(seen))]
    ranks: NDArray[np.int64] = (cosines > own).sum(axis=0)
    return ranks


def _clips(frames: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(max(1, len(frames) - _CLIP_FRAMES + 1)):
        yield frames[start : start + _CLIP_FRAMES]


def main(
    videos: Annotated[
        Path, typer.Option(help="Folder of videos, SEEN.tsv and MOMENTS.tsv.")
    ] = VIDEOS,
    index: Annotated[
        Path | None, typer.Option(help="Index to make or to use.", show_default="one in bench/")
    ] = None,
    chooses: Annotated[
        bool, typer.Option("--choose", help="Compare the constants of the encoder instead.")
    ] = False,
) -> None:
    """Print what the encoder "concepts" finds, and its speed."""
    BENCH.mkdir(exist_ok=True)
    if chooses:
        console.print(choose(videos))
        return
    index = index or BENCH / f"concepts-{concepts_fingerprint()[:12]}"
    console.print(measure(videos, index))
    console.print(compare_speed())


if __name__ == "__main__":
    typer.run(main)
