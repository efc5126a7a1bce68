"""How fast videos are indexed, and how much memory it takes.

    python -m benchmarks.pipeline

All ways of doing it are measured in one run on the same files with the same random weights of the size of ViT-B/32,
one after another in several rounds; the table has the medians. A way's *bound* is what the cores could do if they
were never idle and nothing but decoding and encoding took time.
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table
from transformers import CLIPImageProcessorPil, CLIPModel

from benchmarks.material import (
    BENCH,
    SAMPLE_FPS,
    Film,
    Meter,
    console,
    decode_request,
    median,
    memory_films,
    processor,
    progress_bar,
    run_index,
    speed_films,
    vit_b_32,
)
from scanonce.indexer.settings import IndexerSettings
from scanonce.media.answers import Failed, Frames
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.runtime import num_cores

AIM_SHARE, AIM_RATIO, AIM_KEYFRAMES = 0.85, 3.0, 3.0
_BATCH = 32
_SEQUENTIAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of doing it took."""

    video_seconds: float
    wall_seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Seconds of video a second."""
        return self.video_seconds / self.wall_seconds

    @property
    def cpu_per_video_second(self) -> float:
        """Processor seconds for a second of video."""
        return self.cpu_seconds / self.video_seconds


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured on."""

    encoder: ClipEncoder
    films: dict[str, list[Film]]
    frames: NDArray[np.uint8]
    """``[num_frames, 224, 224, 3]``, decoded before."""

    @property
    def all_films(self) -> list[Film]:
        """Of every size."""
        return [film for films in self.films.values() for film in films]


def total_seconds(films: Sequence[Film]) -> float:
    """Length of all films together."""
    return sum(film.seconds for film in films)


def measure_pipeline(setting: Setting, films: Sequence[Film], settings: IndexerSettings) -> Cost:
    """`index_library` into a fresh index."""
    seconds = total_seconds(films)
    roots = sorted({film.path.parent for film in films})
    with Meter() as meter:
        run_index(roots, setting.encoder, settings, seconds)
    return Cost(seconds, meter.wall_seconds, meter.own_cpu_seconds + meter.children_cpu_seconds)


def decode_all(
    encoder: ClipEncoder, films: Sequence[Film], *, keep: int = 0
) -> list[NDArray[np.uint8]]:
    """Drains a `DecodePool` as the pipeline starts it; gives the first ``keep`` runs of frames."""
    kept: list[NDArray[np.uint8]] = []
    with (
        progress_bar("decoding", total_seconds(films)) as bar,
        DecodePool(decode_request(encoder), workers=num_cores()) as pool,
    ):
        for event in pool.decode([film.path for film in films]):
            if isinstance(event, Failed):
                raise RuntimeError(f"a generated film did not decode: {event.reason}")
            if isinstance(event, Frames):
                bar.advance(len(event.images) / SAMPLE_FPS)
                if len(kept) < keep:
                    kept.append(event.images)
    return kept


def measure_decoding(setting: Setting) -> Cost:
    """Decoding alone; its processor time is that of the child processes."""
    with Meter() as meter:
        decode_all(setting.encoder, setting.all_films)
    seconds = total_seconds(setting.all_films)
    return Cost(seconds, meter.wall_seconds, meter.children_cpu_seconds)


def measure_encoding(setting: Setting, *, max_concurrency: int) -> Cost:
    """Encoding frames that are there already, in batches of 32, ``max_concurrency`` at once."""
    batches = [setting.frames[k : k + _BATCH] for k in range(0, len(setting.frames), _BATCH)]
    setting.encoder.encode_frames(batches[0])  # warm
    with Meter() as meter, ThreadPoolExecutor(max_concurrency) as pool:
        for _ in pool.map(setting.encoder.encode_frames, batches):
            pass
    seconds = len(setting.frames) / SAMPLE_FPS
    return Cost(seconds, meter.wall_seconds, meter.own_cpu_seconds)


class SequentialLoop:
    """The loop people write: a file after another, every frame decoded, one in half a second encoded at once."""

    def __init__(self, checkpoint: Path) -> None:
        """Loads the model in fp32, as `from_pretrained` does unless told otherwise, and the PIL processor."""
        self._model: Any = CLIPModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._processor: Any = CLIPImageProcessorPil.from_pretrained(checkpoint)

    @torch.inference_mode()
    def run(self, film: Film) -> int:
        """Encodes a film; gives the number of frames encoded."""
        torch.set_num_threads(num_cores())  # torch's own default, which our encoder changes
        features = []
        target = 0.0
        with av.open(str(film.path)) as container:
            for frame in container.decode(video=0):
                if frame.time is None or frame.time + 1e-6 < target:
                    continue
                target += 1 / SAMPLE_FPS
                inputs = self._processor(images=_picture(frame), return_tensors="pt")
                features.append(self._model.get_image_features(**inputs).pooler_output)
        return len(features)


def _picture(frame: av.VideoFrame) -> Image.Image:
    picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    return picture


def measure_sequential(loop: SequentialLoop, films: Sequence[Film]) -> Cost:
    """The sequential loop on some of the films."""
    with progress_bar("one after another", total_seconds(films)) as bar, Meter() as meter:
        for film in films:
            loop.run(film)
            bar.advance(film.seconds)
    return Cost(total_seconds(films), meter.wall_seconds, meter.own_cpu_seconds)


def pick_subset(films: Sequence[Film], seconds: float) -> list[Film]:
    """The shortest films up to about ``seconds``."""
    chosen: list[Film] = []
    for film in sorted(films, key=lambda film: film.seconds):
        if total_seconds(chosen) >= seconds:
            break
        chosen.append(film)
    return chosen


Costs = dict[str, list[Cost]]


def measure_speed(setting: Setting, loop: SequentialLoop, rounds: int) -> Costs:
    """Every way in turn, ``rounds`` times, so that a slow minute of the machine meets all of them."""
    costs: Costs = defaultdict(list)
    subset = pick_subset(setting.films["720p"], _SEQUENTIAL_SECONDS)
    keyframes = IndexerSettings(sampling="keyframes")
    loop.run(subset[0])  # warm
    for number in range(rounds):
        console.print(f"round {number + 1} of {rounds}")
        costs["pipeline"].append(measure_pipeline(setting, setting.all_films, IndexerSettings()))
        costs["decoding alone"].append(measure_decoding(setting))
        costs["encoding alone"].append(measure_encoding(setting, max_concurrency=num_cores()))
        costs["encoding alone, 1 thread"].append(measure_encoding(setting, max_concurrency=1))
        costs["sequential loop"].append(measure_sequential(loop, subset))
        costs["pipeline, 720p"].append(
            measure_pipeline(setting, setting.films["720p"], IndexerSettings())
        )
        costs["pipeline, 720p, key frames"].append(
            measure_pipeline(setting, setting.films["720p"], keyframes)
        )
    return costs


def speed_table(costs: Costs) -> Table:
    """Rates and processor time of every way."""
    table = Table(title="indexing speed (medians)", box=None)
    table.add_column("way")
    for column in ("video measured, s", "video s / s", "lowest - highest", "CPU s / video s"):
        table.add_column(column, justify="right")
    for way, measured in costs.items():
        rates = [cost.rate for cost in measured]
        table.add_row(
            way,
            f"{measured[0].video_seconds:.0f}",
            f"{median(rates):.1f}",
            f"{min(rates):.1f} - {max(rates):.1f}",
            f"{median([cost.cpu_per_video_second for cost in measured]):.4f}",
        )
    return table


def aims_table(costs: Costs, cores: int) -> Table:
    """What the rates come to, beside what we aim for."""

    # one thread does not wait for another one spinning: this is the work itself
    bounds = [
        cores / (decoding.cpu_per_video_second + encoding.cpu_per_video_second)
        for decoding, encoding in zip(
            costs["decoding alone"], costs["encoding alone, 1 thread"], strict=True
        )
    ]
    # ratios inside a round: what slows the machine slows both sides
    share = median([a.rate / b for a, b in zip(costs["pipeline"], bounds, strict=True)])
    ratio = paired_ratio(costs["pipeline"], costs["sequential loop"])
    keyframes = paired_ratio(costs["pipeline, 720p, key frames"], costs["pipeline, 720p"])
    table = Table(title="aims", box=None)
    for column in ("figure", "measured", "aim", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    table.add_row(f"bound of {cores} cores, video s / s", f"{median(bounds):.1f}", "", "")
    _add_aim(table, "pipeline / bound", share, AIM_SHARE)
    _add_aim(table, "pipeline / sequential loop", ratio, AIM_RATIO)
    _add_aim(table, "key frames / normal, 720p", keyframes, AIM_KEYFRAMES)
    return table


def paired_ratio(fast: Sequence[Cost], slow: Sequence[Cost]) -> float:
    """Median over the rounds of the ratio of two rates."""
    return median([a.rate / b.rate for a, b in zip(fast, slow, strict=True)])


def _add_aim(table: Table, name: str, value: float, aim: float) -> None:
    verdict = "met" if value >= aim else "missed"
    table.add_row(name, f"{value:.2f}", f">= {aim:.2f}", verdict)


def memory_table(setting: Setting) -> Table:
    """Peak memory of the whole pipeline, in runs of their own: looking at memory takes time."""
    table = Table(title="peak memory of all processes (sum of PSS), encoder included", box=None)
    table.add_column("films")
    table.add_column("MB", justify="right")
    short, long = memory_films()
    cases = {
        "720p and 1080p": setting.all_films,
        f"2160p, {short.seconds:.0f} s": [short],
        f"2160p, {long.seconds:.0f} s": [long],
    }
    for name, films in cases.items():
        roots = sorted({film.path.parent for film in films})
        with Meter(memory=True) as meter:
            run_index(roots, setting.encoder, IndexerSettings(), total_seconds(films))
        table.add_row(name, f"{meter.peak_bytes / 1e6:.0f}")
    return table


def prepare() -> tuple[Setting, SequentialLoop]:
    """Material, models and warm decoders."""
    films = speed_films()
    checkpoint = vit_b_32()
    with console.status("loading"):
        encoder = load_encoder(str(checkpoint), towers="vision")
        loop = SequentialLoop(checkpoint)
    frames = decode_all(encoder, [film for each in films.values() for film in each], keep=20)
    return Setting(encoder, films, np.concatenate(frames)), loop


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 3,
    memory: Annotated[bool, typer.Option(help="Also measure peak memory.")] = True,
) -> None:
    """Print indexing speed against its bound and a plain loop, and peak memory."""
    BENCH.mkdir(exist_ok=True)
    setting, loop = prepare()
    films = setting.all_films
    megabits = sum(film.path.stat().st_size for film in films) * 8e-6 / total_seconds(films)
    console.print(
        f"{processor()}, {num_cores()} cores; {len(films)} films, {total_seconds(films):.0f} s, "
        f"{megabits:.1f} Mb/s, H.264; {len(setting.frames)} frames for encoding alone"
    )
    costs = measure_speed(setting, loop, rounds)
    console.print(speed_table(costs))
    console.print(aims_table(costs, num_cores()))
    if memory:
        del loop
        console.print(memory_table(setting))


if __name__ == "__main__":
    typer.run(main)
