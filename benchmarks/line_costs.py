"""What lines cost: time, memory and bytes of speech, text in images and their search.

    python -m benchmarks.line_costs VIDEOS [--only speech,frames,search,memory,silent,size]

VIDEOS is the folder of `benchmarks.lines`. Each table is a ratio, or a figure with its aim, of one run:

speech   reading the talk, beside faster-whisper alone on the same file
frames   frames whose text is read, of those that are stored: of the talk, and of cameras that do not move
search   the text stage at a million lines of everyday words, drawn by Zipf's law; the first 20 queries are not counted
memory   the most memory that reading ten hours of audio takes, most of it silence
silent   a pass for speech over a long video in which nobody speaks, beside indexing it
size     bytes of an hour of dense talk, with its words and vectors
"""

import csv
import json
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.material import console, percentile, processor
from scanonce.indexer.passages import embed_passages
from scanonce.library import Library
from scanonce.media.limits import Limits
from scanonce.media.tracks import Audio
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.runtime import num_cores
from scanonce.models.settings import ModelSettings
from scanonce.models.tracks.meaning import load_text_model
from scanonce.models.tracks.settings import TrackSettings
from scanonce.models.tracks.speech import load_speech_model, offline_folder
from scanonce.models.vectors import unit
from scanonce.search.line_moments import LineFinder, Part
from scanonce.search.meanings import Meanings
from scanonce.search.query import Text
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.catalog.lines import TrackVectors
from scanonce.storage.catalog.passages import Passages
from scanonce.storage.index import Index
from scanonce.storage.records import Line, VideoInfo

CAMERAS = ("intel_one_by_one_person.mp4", "intel_bottle_detection.mp4", "intel_car_detection.mp4")
"""Videos of cameras that do not move."""
AIMS = {"speech": 0.9, "talk": 1 / 7, "cameras": 1 / 20, "search": 8.0, "memory": 500.0}
AIM_SILENT, AIM_SIZE = 0.03, 300.0

_TABLES = (
    "tracks", "lines", "ix_lines_track_id", "line_words_data", "line_words_idx", "line_words_docsize"
)  # fmt: skip
_LIMITS = Limits(60.0)
_RATE = 16_000
_SPEED_SETTINGS = TrackSettings(text_model="off")


def main(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, with SAID.tsv.")],
    only: Annotated[str, typer.Option(help="Which, separated by commas.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of which the fastest counts.")] = 3,
    lines: Annotated[int, typer.Option(min=1000, help="Lines that are searched.")] = 1_000_000,
    hours: Annotated[float, typer.Option(min=0.1, help="Length of the audio file.")] = 10.0,
    encoder: Annotated[str, typer.Option(help="Encoder of the silent video.")] = BUNDLED_NAME,
) -> None:
    """Print what lines cost."""
    talk = videos / longest_talk(videos)
    tables: dict[str, Callable[[Path], Table]] = {
        "speech": lambda _: speech_table(talk, repeats),
        "frames": lambda folder: frames_table(talk, [videos / name for name in CAMERAS], folder),
        "search": lambda folder: search_table(lines, folder),
        "memory": lambda folder: memory_table(talk, hours, folder),
        "silent": lambda folder: silent_table(videos / CAMERAS[0], encoder, folder),
        "size": lambda folder: size_table(talk, folder),
    }
    wanted = only.split(",") if only else list(tables)
    if unknown := set(wanted) - set(tables):
        raise typer.BadParameter(f"tables are {', '.join(tables)}; got {', '.join(unknown)}")
    console.print(f"{processor()}, {num_cores()} cores")
    for name in wanted:
        with TemporaryDirectory(prefix="scanonce-lines-") as folder:
            console.print(tables[name](Path(folder)))


def longest_talk(videos: Path) -> str:
    """Return the name of the longest video in which something is said."""
    with (videos / "SAID.tsv").open(newline="", encoding="utf-8") as content:
        names = {row["filename"] for row in csv.DictReader(content, delimiter="\t")}
    return max(names, key=lambda name: (videos / name).stat().st_size)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table; all columns but the first are numbers."""
    table = Table(title=title, box=None)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def met(is_met: bool) -> str:
    """Return a word for whether an aim is met."""
    return "met" if is_met else "missed"


# ---------------------------------------------------------------- speech


def speech_table(talk: Path, repeats: int) -> Table:
    """Time our reading of speech and faster-whisper's own, in turns."""
    from faster_whisper import WhisperModel

    model = load_speech_model("auto")
    folder = offline_folder()
    alone = WhisperModel(
        str(folder or "base"), device="cpu", compute_type="auto", cpu_threads=num_cores()
    )
    ours, theirs = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        with Audio(talk, limits=_LIMITS, length_seconds=36_000.0) as audio:
            sum(1 for _ in model.transcribe(audio))
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        segments, _ = alone.transcribe(str(talk), vad_filter=True)
        sum(1 for _ in segments)
        theirs.append(time.perf_counter() - started)
    ratio = min(theirs) / min(ours)
    table = new_table("speech", "file", "ours, s", "faster-whisper, s", "ratio", "aim")
    aim = f">= {AIMS['speech']}: {met(ratio >= AIMS['speech'])}"
    table.add_row(talk.name, f"{min(ours):.1f}", f"{min(theirs):.1f}", f"{ratio:.2f}", aim)
    return table


# ---------------------------------------------------------------- frames


def frames_table(talk: Path, cameras: Sequence[Path], folder: Path) -> Table:
    """Count the frames whose text is read."""
    table = new_table("frames whose text is read", "videos", "stored", "read", "share", "aim")
    for name, paths in (("talk", [talk]), ("cameras", cameras)):
        models = ModelSettings(encoder=BUNDLED_NAME)
        with Library(folder / name, models=models, tracks=_SPEED_SETTINGS) as library:
            library.index(paths)
            with Index.open(library.root, read_only=True) as index:
                frames = sum(video.num_frames for video in index.catalog.videos())
            read = library.make_tracks(["written"]).num_pictures
        aim = AIMS[name]
        verdict = f"<= 1/{1 / aim:.0f}: {met(read <= aim * frames)}"
        table.add_row(name, str(frames), str(read), f"1/{frames / max(1, read):.0f}", verdict)
    return table


# ---------------------------------------------------------------- search


def search_table(num_lines: int, folder: Path) -> Table:
    """Time the text stage of queries of two to five words."""
    rng = np.random.default_rng(0)
    words = everyday_words(50_000, rng)
    started = time.perf_counter()
    with Catalog.open(folder / "catalog.sqlite") as catalog:
        passages = put_lines(catalog, words, num_lines, rng)
        console.print(f"{num_lines:,} lines made in {time.perf_counter() - started:.0f} s")
        videos = {video.video_id: video for video in catalog.videos()}
        meanings = Meanings.of(passages, 384)
        queries = [" ".join(zipf(words, int(rng.integers(2, 6)), rng)) for _ in range(220)]
        table = new_table(
            f"the text stage at {num_lines:,} lines, {len(meanings.steps):,} passages",
            "stage", "p50, ms", "p90, ms", "p50 of processor time, ms", "aim",
        )  # fmt: skip
        for name, model in (("words", None), ("words and meaning", FixedVectors())):
            finder = LineFinder(catalog, videos, meanings, model)
            times, cpu_times = [], []
            for query in queries:
                part = Part.of(Text(query))
                started, cpu_started = time.perf_counter(), time.process_time()
                finder.find(part, None)
                times.append(1000 * (time.perf_counter() - started))
                cpu_times.append(1000 * (time.process_time() - cpu_started))
            times, cpu_times = times[20:], cpu_times[20:]
            p50, cpu = percentile(times, 50), percentile(cpu_times, 50)
            aim = f"<= {AIMS['search']:.0f} ms: {met(p50 <= AIMS['search'])}"
            table.add_row(name, f"{p50:.1f}", f"{percentile(times, 90):.1f}", f"{cpu:.1f}", aim)
    return table


class FixedVectors:
    """A text model of random vectors, so that embedding a sentence is not counted; see benchmarks.embeddings."""

    fingerprint, dim = "random", 384

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector of length 1 for each text."""
        return unit(self._rng.standard_normal((len(texts), self.dim)))


def everyday_words(number: int, rng: np.random.Generator) -> list[str]:
    """Return different words of two to ten letters; the first are short, as the common words of a language are."""
    found: dict[str, None] = {}
    while len(found) < number:
        length = min(10, 2 + int(np.log2(2 + len(found)) / 2) + int(rng.integers(0, 3)))
        found["".join(chr(97 + k) for k in rng.integers(0, 26, length))] = None
    return list(found)


def zipf(words: Sequence[str], number: int, rng: np.random.Generator) -> list[str]:
    """Draw words by Zipf's law: the n-th has the frequency 1/n."""
    shares = np.cumsum(1.0 / np.arange(1, len(words) + 1))
    at = np.searchsorted(shares, rng.random(number) * shares[-1])
    return [words[k] for k in at.tolist()]


def put_lines(
    catalog: Catalog, words: Sequence[str], num_lines: int, rng: np.random.Generator
) -> list[TrackVectors]:
    """Fill a catalogue with videos of 1,000 lines of eight words; return vectors of every two lines."""
    catalog.add_library(Path("/films"))
    found = []
    info = VideoInfo(4_000.0, 640, 360, 25.0, "h264")
    for number in range(-(-num_lines // 1000)):
        count = min(1000, num_lines - 1000 * number)
        content = Content(f"{number:x}", f"{number:x}", 100)
        video_id = catalog.record_indexed(
            content,
            [FileStamp(Path(f"/films/{number:05}.mp4"), 100, 1)],
            state="indexed",
            duration_seconds=4_000.0,
            num_frames=8_000,
            info=info,
        )
        texts = np.array(zipf(words, 8 * count, rng)).reshape(count, 8)
        track = ("said", "written")[number % 2]
        lines = [
            Line(video_id, track, 4.0 * k, 4.0 * k + 4, " ".join(row), 0.9, "en")  # type: ignore[arg-type]
            for k, row in enumerate(texts)
        ]
        catalog.lines.put(video_id, track, lines, source="random")  # type: ignore[arg-type]
        half = -(-count // 2)
        vectors = unit(rng.standard_normal((half, 384)).astype(np.float32))
        passages = Passages(vectors, np.full(half, 2))
        found.append(TrackVectors(number + 1, video_id, track, passages))  # type: ignore[arg-type]
    return found


# ---------------------------------------------------------------- memory


def memory_table(talk: Path, hours: float, folder: Path) -> Table:
    """Measure the memory of the processes that read a long audio file: five minutes of each hour are talk."""
    path = folder / "long.mka"
    write_long_audio(talk, path, hours)
    code = f"from benchmarks.line_costs import print_memory; print_memory({str(path)!r})"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    took = time.perf_counter() - started
    found = json.loads(done.stdout)
    table = new_table(
        f"{hours:.0f} h of audio, read in {took:.0f} s",
        "process",
        "at first, MB",
        "most, MB",
        "aim",
    )
    for name, first in (("decoder", 0.0), ("recogniser", found["before"])):
        most = found[name]
        aim = f"<= {AIMS['memory']:.0f}: {met(most <= AIMS['memory'])}"
        table.add_row(name, f"{first:.0f}" if first else "", f"{most:.0f}", aim)
    return table


def print_memory(path: str) -> None:
    """Read the speech of a file, and print the memory of this process and of its child."""
    model = load_speech_model("auto")
    megabyte = 1024  # ru_maxrss counts in kB on Linux
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / megabyte
    with Audio(Path(path), limits=_LIMITS, length_seconds=360_000.0) as audio:
        number = sum(1 for _ in model.transcribe(audio))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / megabyte
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / megabyte
    values = {"before": before, "recogniser": most, "decoder": child, "lines": number}
    sys.stdout.write(json.dumps(values))


def write_long_audio(talk: Path, path: Path, hours: float) -> None:
    """Write an audio file: the talk over and over for the first minutes of each hour, then silence."""
    with Audio(talk, limits=_LIMITS, length_seconds=3600.0) as audio:
        spoken = np.concatenate(list(audio))
    hour = np.zeros(3600 * _RATE, np.int16)
    said = np.tile(spoken, 3)[: 300 * _RATE]
    hour[: len(said)] = said
    with av.open(str(path), "w") as output:
        stream = add_audio(output)
        for number in range(int(np.ceil(hours))):
            length = int(min(1.0, hours - number) * len(hour))
            for packet in encoded(stream, hour[:length], start=number * len(hour)):
                output.mux(packet)
        output.mux(stream.encode())


def add_audio(output: Any) -> Any:
    """Add a stream of speech at a low rate."""
    stream: Any = output.add_stream("libopus", rate=48_000, layout="mono")
    stream.bit_rate = 16_000
    return stream


def encoded(stream: Any, samples: NDArray[np.int16], *, start: int = 0) -> Iterator[Any]:
    """Yield the packets of samples at 16 kHz."""
    for first in range(0, len(samples), 30 * _RATE):
        piece = np.ascontiguousarray(samples[None, first : first + 30 * _RATE])
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
        frame.sample_rate, frame.pts = _RATE, start + first
        yield from stream.encode(frame)


# ---------------------------------------------------------------- silence


def silent_table(camera: Path, encoder: str, folder: Path) -> Table:
    """Time a pass for speech over a long video with a silent audio track, and indexing it."""
    films = folder / "films"
    films.mkdir()
    minutes = write_silent_video(camera, films / "silent.mkv", times=10)
    models = ModelSettings(encoder=encoder)
    with Library(folder / "index", models=models, tracks=_SPEED_SETTINGS) as library:
        library.models(encoder)
        started = time.perf_counter()
        library.index([films], encoder=encoder)
        indexed = time.perf_counter() - started
        started = time.perf_counter()
        report = library.make_tracks(["said"])
        passed = time.perf_counter() - started
    assert report.num_lines == 0, "somebody speaks"
    ratio = passed / indexed
    table = new_table(
        f"speech of {minutes:.0f} silent minutes, encoder {encoder}",
        "video", "indexing, s", "pass, s", "ratio", "aim",
    )  # fmt: skip
    aim = f"<= {AIM_SILENT:.0%}: {met(ratio <= AIM_SILENT)}"
    table.add_row(camera.name, f"{indexed:.1f}", f"{passed:.2f}", f"{ratio:.1%}", aim)
    return table


def write_silent_video(source: Path, path: Path, times: int) -> float:
    """Write the images of a video several times one after another, with a silent audio track; return its minutes."""
    with av.open(str(path), "w") as output, av.open(str(source)) as first:
        video = output.add_stream_from_template(first.streams.video[0])
        audio = add_audio(output)
        base = first.streams.video[0].time_base
        length = first.streams.video[0].duration
        assert base is not None
        assert length is not None
        for number in range(times):
            with av.open(str(source)) as again:
                for packet in again.demux(video=0):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.dts, packet.pts = (
                        packet.dts + number * length,
                        packet.pts + number * length,
                    )
                    packet.stream = video
                    output.mux(packet)
        seconds = float(length * times * base)
        for packet in encoded(audio, np.zeros(int(seconds * _RATE), np.int16)):
            output.mux(packet)
        output.mux(audio.encode())
    return seconds / 60


# ---------------------------------------------------------------- size


def size_table(talk: Path, folder: Path) -> Table:
    """Measure the bytes of an hour: the lines of the talk over and over, in a video of their own."""
    model = load_text_model("auto")
    with Audio(talk, limits=_LIMITS, length_seconds=3600.0) as audio:
        said = list(load_speech_model("auto").transcribe(audio))
    length = said[-1].end_seconds
    lines = [
        Line(1, "said", k * length + each.start_seconds, k * length + each.end_seconds, each.text,
             each.confidence, each.language)
        for k in range(int(3600 // length)) for each in said
    ]  # fmt: skip
    path = folder / "catalog.sqlite"
    with Catalog.open(path) as catalog:
        catalog.add_library(Path("/films"))
        empty = bytes_of_lines(path)
        content = Content("a", "a", 100)
        video_id = catalog.record_indexed(
            content, [FileStamp(Path("/films/talk.mp4"), 100, 1)], state="indexed",
            duration_seconds=3600.0, num_frames=7200, info=VideoInfo(3600.0, 640, 360, 25.0, "h264"),
        )  # fmt: skip
        embedder = None if model is None else model.fingerprint
        passages = None if model is None else embed_passages(lines, model)
        catalog.lines.put(
            video_id, "said", lines, source="tiny.en", embedder=embedder, passages=passages
        )
    sizes = bytes_of_lines(path)
    hour = 3600 / lines[-1].end_seconds
    table = new_table(f"an hour of talk, {len(lines)} lines", "table", "kB", "aim")
    for name in _TABLES:
        table.add_row(name, f"{hour * (sizes[name] - empty[name]) / 1000:.0f}")
    total = hour * (sum(sizes.values()) - sum(empty.values())) / 1000
    table.add_row("together", f"{total:.0f}", f"<= {AIM_SIZE:.0f}: {met(total <= AIM_SIZE)}")
    return table


def bytes_of_lines(catalog: Path) -> dict[str, int]:
    """Return the bytes of the pages of each table that lines are in."""
    with closing(sqlite3.connect(catalog)) as connection:
        rows = connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall()
    sizes = dict(rows)
    return {name: int(sizes.get(name, 0)) for name in _TABLES}


if __name__ == "__main__":
    typer.run(main)
