"""Speed and exactness of localising in one long video: SOONet scanned once, SOONet as published, and others.

    python -m benchmarks.localise --official .venv-ms/lib/python3.11/site-packages

The official implementation is ModelScope's (Apache-2.0, ``pip install --no-deps modelscope==1.40.2`` into any
environment); without it, its rows are omitted. Weights and features are random: speed and agreement do not depend on
them. Every figure comes from a process of its own, on one thread. On a shared machine, compare CPU times.
"""

import importlib.util
import json
import math
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn

from benchmarks.material import BENCH, console, median, processor
from scanonce.models.runtime import num_cores
from scanonce.models.soonet.checkpoint import read_soonet
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.query import (
    SelectedAnchors,
    preselect,
    rank,
    refine,
    score_anchors,
    second_stage,
    sigmoid,
)
from scanonce.models.vectors import pool_spans, unit
from scanonce.storage.clips import ClipGrid

Method = Literal[
    "official", "official max", "ours max", "uncached", "fp32", "fp16", "moment-detr", "windows"
]

NAMES: dict[Method, str] = {
    "official": "SOONet, official code",
    "uncached": "SOONet, ours, scanned for each query",
    "fp32": "SOONet, ours, scanned once, fp32",
    "fp16": "SOONet, ours, scanned once, fp16",
    "moment-detr": "Moment-DETR's size, sliding",
    "windows": "CLIP windows and NMS",
}

_MINUTES = (10, 60, 120)
_FPS = 5.0
_DIM = 512
_TOP = 10
_PER_SCALE = 100
_CONFIG = SoonetConfig(
    legacy_mask=True
)  # as published, but with mean pooling, which makes both stages one inner product
_CHECKPOINT = "SOONet_MAD_VIT-B-32_4Scale_10C.pth"  # name expected by the official code


@dataclass(frozen=True, slots=True)
class Answer:
    """The best moments for one query."""

    anchors: list[tuple[float, float]]
    """Spans of the anchors, best first."""
    scores: list[float]
    spans: list[tuple[float, float]]
    """Spans after regression, not clipped to the video."""


@dataclass(slots=True)
class Figures:
    """Measurements of one method on one video."""

    method: Method
    minutes: int
    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    scan_ms: list[float] = field(default_factory=list)
    """CPU time of comparing the query with all stored vectors, if the method stores any."""
    stored_bytes: int = 0
    index_seconds: float = 0.0
    peak_bytes: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def per_hour(self) -> float:
        """Factor from this video to an hour."""
        return 60 / self.minutes


# ------------------------------------------------ material


def checkpoint() -> Path:
    """Write a file like the published one with random weights, none of them zero, and return its folder."""
    folder = BENCH / "soonet"
    path = folder / _CHECKPOINT
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(3)
        model = Soonet(_CONFIG)
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                nn.init.uniform_(weight, 0.25, 0.75)
            elif "norm" in name or name.endswith("_bias"):
                nn.init.normal_(weight, std=0.1)
        torch.save({"model": model.state_dict()}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return folder


def draw_frames(minutes: int) -> NDArray[np.float16]:
    """Draw raw features at 5 fps like CLIP's: scenes of 3 to 12 s in a narrow cone, of length about 10."""
    rng = np.random.default_rng(minutes)
    num_frames = round(minutes * 60 * _FPS)
    lengths = rng.integers(15, 60, num_frames // 15)
    scenes = rng.standard_normal((len(lengths), _DIM), np.float32)
    scenes = np.repeat(scenes, lengths, axis=0)[:num_frames]
    common = rng.standard_normal(_DIM, np.float32)
    noise = rng.standard_normal((num_frames, _DIM), np.float32)
    features: NDArray[np.float16] = (0.3 * (common + scenes + 0.4 * noise)).astype(np.float16)
    return features


def draw_texts(count: int) -> NDArray[np.float32]:
    """Draw raw text features."""
    return np.random.default_rng(8).standard_normal((count, _DIM), np.float32)


# ------------------------------------------------ methods

Ask = Callable[[NDArray[np.float32]], Answer | None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A method after indexing."""

    ask: Ask
    """Answers a query."""
    compare: Ask | None = None
    """Only compares a query with the stored vectors."""
    preselected: Ask | None = None
    """Answers a query with the published limit of 100 anchors of each scale, which ours does not need."""


def prepare(figures: Figures, official: Path | None) -> Prepared:
    """Run the indexing of a method."""
    frames = draw_frames(figures.minutes)
    match figures.method:
        case "official" | "official max":
            assert official is not None
            mean = figures.method == "official"
            return Prepared(official_method(official, frames, mean_pooling=mean))
        case "uncached":
            return Prepared(uncached_method(frames))
        case "ours max":
            return Prepared(max_method(frames))
        case "fp32" | "fp16":
            return scanned_method(figures, frames)
        case "moment-detr":
            return Prepared(sliding_method(frames))
        case "windows":
            return windows_method(figures, frames)


def scanned_method(figures: Figures, frames: NDArray[np.float16]) -> Prepared:
    """SOONet as in `scanonce search`: ranking by stored vectors, frames of the ten best anchors only."""
    model = read_soonet(checkpoint() / _CHECKPOINT, _CONFIG)
    begin = time.process_time()
    dtype = np.float32 if figures.method == "fp32" else np.float16
    scanned = model.scan(frames, dtype=dtype)
    figures.index_seconds = time.process_time() - begin
    figures.stored_bytes = scanned.vectors.nbytes + scanned.norms.nbytes
    counts = model.config.grid.counts(len(frames) / _FPS)

    def compare(text: NDArray[np.float32]) -> None:
        score_anchors(model.query_vector(text), scanned.vectors)

    def ask(text: NDArray[np.float32], per_scale: int | None = None) -> Answer:
        best = rank(
            model.query_vector(text), scanned.vectors, _TOP, counts=counts, per_scale=per_scale
        )
        return _answer(model, text, frames, best.rows, best.scores, scanned.vectors, scanned.norms)

    return Prepared(ask, compare, lambda text: ask(text, _PER_SCALE))


def uncached_method(frames: NDArray[np.float16]) -> Ask:
    """SOONet without stored vectors."""
    model = read_soonet(checkpoint() / _CHECKPOINT, _CONFIG)

    def ask(text: NDArray[np.float32]) -> Answer:
        scanned = model.scan(frames, dtype=np.float32)
        best = rank(model.query_vector(text), scanned.vectors, _TOP)
        return _answer(model, text, frames, best.rows, best.scores, scanned.vectors, scanned.norms)

    return ask


def max_method(frames: NDArray[np.float16]) -> Ask:
    """SOONet with the published pooling: `s1` from stored vectors, `s2` for 100 anchors of each scale."""
    model = read_soonet(checkpoint() / _CHECKPOINT)
    scanned = model.scan(frames, dtype=np.float32)
    duration = len(frames) / _FPS
    counts = model.config.grid.counts(duration)

    def ask(text: NDArray[np.float32]) -> Answer:
        query = model.query_vector(text)
        first = score_anchors(query, scanned.vectors)
        rows = preselect(first, counts, _PER_SCALE)
        scores = first[rows] + second_stage(
            model, query, rows, lambda first, last: frames[first:last], duration
        )
        order = np.argsort(-scores, kind="stable")[:_TOP]
        return _answer(
            model, text, frames, rows[order], scores[order], scanned.vectors, scanned.norms
        )

    return ask


def _answer(
    model: Soonet,
    text: NDArray[np.float32],
    frames: NDArray[np.float16],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    vectors: NDArray[np.floating],
    norms: NDArray[np.float32],
) -> Answer:
    duration = len(frames) / _FPS
    selected = SelectedAnchors(
        rows, vectors[rows], norms[rows], lambda first, last: frames[first:last], duration
    )
    (spans,) = refine(model, text, [selected], raw=True)
    anchors = model.config.grid.spans_of(rows, duration)
    return Answer(_pairs(anchors), sigmoid(scores).tolist(), _pairs(spans))


def _pairs(spans: NDArray[np.floating]) -> list[tuple[float, float]]:
    return [(float(start), float(end)) for start, end in spans]


def windows_method(figures: Figures, frames: NDArray[np.float16]) -> Prepared:
    """CLIP's cosine with mean-pooled windows as long as anchors, overlapping by half, then NMS."""
    begin = time.process_time()
    duration = len(frames) / _FPS
    spans = ClipGrid((2.0, 4.0, 8.0, 16.0)).spans(duration)
    pooled = pool_spans(unit(frames), np.arange(len(frames)) / _FPS, spans, _FPS).astype(np.float16)
    figures.index_seconds = time.process_time() - begin
    figures.stored_bytes = pooled.nbytes

    def compare(text: NDArray[np.float32]) -> None:
        score_anchors(unit(text), pooled)

    def ask(text: NDArray[np.float32]) -> None:
        scores = score_anchors(unit(text), pooled)
        best = np.argsort(-scores)[:200]
        _apart(spans[best], 0.5)

    return Prepared(ask, compare)


def _apart(spans: NDArray[np.floating], tiou: float) -> list[int]:
    """Positions of the first ten spans ``[n, 2]``, best first, of which no two overlap by more than ``tiou``."""
    kept: list[int] = []
    left = np.arange(len(spans))
    while len(left) and len(kept) < _TOP:
        kept.append(int(left[0]))
        start, end = spans[left[0]]
        shared = np.minimum(spans[left, 1], end) - np.maximum(spans[left, 0], start)
        hull = np.maximum(spans[left, 1], end) - np.minimum(spans[left, 0], start)
        left = left[1:][(shared <= tiou * hull)[1:]]
    return kept


class MomentDetrSize(nn.Module):
    """A transformer of Moment-DETR's size (arXiv 2107.09609): 2 + 2 layers of 256, 10 moments of 75 clips."""

    def __init__(self) -> None:
        """Draw new weights."""
        super().__init__()
        self.video = self._projection(_DIM + 2)
        self.text = self._projection(_DIM)
        self.transformer = nn.Transformer(256, 8, 2, 2, 1024, dropout=0.0, batch_first=True)
        self.moments = nn.Parameter(torch.randn(10, 256))
        self.span = nn.Sequential(
            nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2)
        )
        self.label = nn.Linear(256, 2)

    @staticmethod
    def _projection(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 256),
            nn.ReLU(),
            nn.LayerNorm(256),
            nn.Linear(256, 256),
        )

    def forward(self, clips: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Clips ``[B, 75, 514]`` and words ``[32, 512]`` to centre, width ``[B, 10, 2]`` and foreground ``[B, 10]``."""
        batch = len(clips)
        text = self.text(words).expand(batch, -1, -1)
        memory = torch.cat([self.video(clips), text], dim=1)  # [B, 107, 256]
        found = self.transformer(memory, self.moments.expand(batch, -1, -1))
        return self.span(found).sigmoid(), self.label(found).softmax(-1)[..., 0]


def sliding_method(frames: NDArray[np.float16]) -> Ask:
    """Moment-DETR on 75 clips of 2 s, every 74 s; its input contains the query, so nothing can be stored."""
    torch.manual_seed(4)
    model = MomentDetrSize().eval()
    clips = unit(frames).reshape(-1, 10, _DIM).mean(1)
    starts = np.arange(0, max(1, len(clips) - 37), 37)
    windows = np.stack([np.resize(clips[start : start + 75], (75, _DIM)) for start in starts])
    position = np.arange(75, dtype=np.float32)[:, None]
    tef = np.concatenate([position, position + 1], axis=1) / 75  # [75, 2]
    tef = np.broadcast_to(tef, (len(windows), 75, 2))
    inputs = torch.from_numpy(np.concatenate([windows, tef], axis=2).astype(np.float32))
    offsets = starts[:, None] * 2.0

    @torch.inference_mode()
    def ask(text: NDArray[np.float32]) -> None:
        words = torch.from_numpy(np.tile(unit(text), (32, 1)))
        parts = [model(batch, words) for batch in inputs.split(16)]  # type: ignore[no-untyped-call]
        boxes = torch.cat([span for span, _ in parts]).numpy() * 150.0
        scores = torch.cat([score for _, score in parts]).numpy().ravel()
        centre, width = boxes[..., 0] + offsets, boxes[..., 1]
        spans = np.stack([centre - width / 2, centre + width / 2], axis=-1).reshape(-1, 2)
        best = np.argsort(-scores)[:200]
        _apart(spans[best], 0.7)

    return ask


# ------------------------------------------------ the official implementation


def official_method(site: Path, frames: NDArray[np.float16], *, mean_pooling: bool) -> Ask:
    """The official network, with the arithmetic of its pipeline from features on."""
    with _official_modules(site) as (module, blocks):
        model = module.SOONet(str(checkpoint())).eval()
    if mean_pooling:  # as in the authors' own repository; ModelScope's code has the maximum
        blocks.torch = _MeanForMax()
    duration = len(frames) / _FPS
    padded = math.ceil(len(frames) / 80) * 80
    starts, ends, bounds = [], [], [0]
    for length in _CONFIG.grid.lengths:
        count, room = math.ceil(len(frames) / length), padded // length
        seconds = length // 5
        numbers = np.arange(count, dtype=np.float32)
        starts.append(np.pad(numbers * seconds, (0, room - count)))
        ends.append(np.pad(np.minimum(duration, (numbers + 1) * seconds), (0, room - count)))
        bounds.append(bounds[-1] + room)
    start_ts = torch.from_numpy(np.concatenate(starts)).float()
    end_ts = torch.from_numpy(np.concatenate(ends)).float()
    video = torch.zeros(1, padded, _DIM)
    video[0, : len(frames)] = torch.from_numpy(frames.astype(np.float32))

    @torch.no_grad()
    def ask(text: NDArray[np.float32]) -> Answer:
        scores, offsets, first, last = (
            each.numpy()
            for each in model.forward_test(
                query_feats=torch.from_numpy(text)[None],
                video_feats=video,
                start_ts=start_ts,
                end_ts=end_ts,
                scale_boundaries=torch.tensor(bounds),
            )
        )
        order = np.argsort(-scores[0], kind="stable")
        best = order[last[order] > first[order]][:_TOP]  # the others are padding
        anchors = np.stack([first[best], last[best]], axis=1).astype(np.float64)
        spans = anchors + offsets[0, best] * (anchors[:, 1:] - anchors[:, :1])
        spans[:, 0] = np.maximum(spans[:, 0], 0)
        return Answer(_pairs(anchors), scores[0, best].astype(float).tolist(), _pairs(spans))

    return ask


class _MeanForMax:
    """torch for the official blocks, with the mean instead of their only maximum."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def max(values: Tensor, dim: int) -> tuple[Tensor, None]:
        """Return the mean, in the form of `torch.max`."""
        return values.mean(dim=dim), None


@contextmanager
def _official_modules(site: Path) -> Iterator[tuple[Any, Any]]:
    """Import the files of the network, without the rest of ModelScope and its requirements."""
    folder = site / "modelscope" / "models" / "multi_modal" / "soonet"
    hyperparams = types.SimpleNamespace(
        nscales=4, hidden_dim=_DIM, snippet_length=10, enable_stage2=True, stage2_topk=_PER_SCALE
    )
    stand_ins: dict[str, dict[str, Any]] = {
        "metainfo": {"Models": types.SimpleNamespace(soonet="soonet")},
        "models.base.base_torch_model": {"TorchModel": nn.Module},
        "models.builder": {
            "MODELS": types.SimpleNamespace(register_module=lambda *_, **__: lambda cls: cls)
        },
        "utils.config": {
            "Config": types.SimpleNamespace(
                from_file=lambda _: types.SimpleNamespace(hyperparams=hyperparams)
            )
        },
        "utils.constant": {
            "ModelFile": types.SimpleNamespace(CONFIGURATION="configuration.json"),
            "Tasks": types.SimpleNamespace(video_temporal_grounding="video-temporal-grounding"),
        },
    }
    before = dict(sys.modules)
    for name, content in stand_ins.items():
        parts = f"modelscope.{name}".split(".")
        for end in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(parts[end - 1]))
        vars(sys.modules[f"modelscope.{name}"]).update(content)
    package = types.ModuleType("official_soonet")
    package.__path__ = [str(folder)]
    sys.modules["official_soonet"] = package
    try:
        yield _from_file("model", folder), sys.modules["official_soonet.blocks"]
    finally:
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]


def _from_file(name: str, folder: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"official_soonet.{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------ measuring


def measure(method: Method, minutes: int, official: Path | None, num_queries: int) -> Figures:
    """Measure a method; to be called in a process of its own."""
    torch.set_num_threads(1)
    figures = Figures(method, minutes)
    prepared = prepare(figures, official)
    texts = draw_texts(num_queries)
    prepared.ask(texts[0])  # warm-up
    for text in texts:
        wall, cpu = time.perf_counter(), time.process_time()
        answer = prepared.ask(text)
        figures.cpu_ms.append((time.process_time() - cpu) * 1e3)
        figures.wall_ms.append((time.perf_counter() - wall) * 1e3)
        if prepared.preselected is not None:
            answer = prepared.preselected(text)
        if answer is not None:
            figures.answers.append(answer)
    if prepared.compare is not None:
        for text in texts:
            cpu = time.process_time()
            prepared.compare(text)
            figures.scan_ms.append((time.process_time() - cpu) * 1e3)
    figures.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return figures


def measure_apart(method: Method, minutes: int, official: Path | None) -> Figures:
    """Call `measure` in a new process, with fewer queries for methods that take seconds."""
    slow = method in ("official", "official max", "uncached", "ours max")
    num_queries = (5 if minutes <= 10 else 3) if slow else 40
    with (
        console.status(f"{NAMES.get(method, method)}, {minutes} min"),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        return pool.submit(measure, method, minutes, official, num_queries).result()


@dataclass(frozen=True, slots=True)
class Agreement:
    """Differences between the answers of two methods."""

    same_order: int
    queries: int
    worst_score: float
    worst_span_seconds: float


def compare_answers(one: Sequence[Answer], other: Sequence[Answer]) -> Agreement:
    """Compare answers to the queries that both methods have answered."""
    pairs = list(zip(one, other, strict=False))
    same = [a.anchors == b.anchors for a, b in pairs]
    scores = [np.abs(np.subtract(a.scores, b.scores)).max() for a, b in pairs]
    spans = [
        np.abs(np.subtract(a.spans, b.spans)).max()
        for (a, b), equal in zip(pairs, same, strict=True)
        if equal
    ]
    return Agreement(sum(same), len(pairs), float(max(scores)), float(max(spans, default=math.nan)))


# ------------------------------------------------ report


def times_table(figures: Sequence[Figures]) -> Table:
    """One row per method and length of the video."""
    table = Table(title="one query in one video, medians", box=None)
    table.add_column("method", no_wrap=True)
    columns = ("minutes", "CPU ms", "wall ms", "scan ms", "MB/h stored", "indexing s/h", "peak MB")
    for column in columns:
        table.add_column(column, justify="right")
    for each in figures:
        table.add_row(
            NAMES[each.method],
            str(each.minutes),
            f"{median(each.cpu_ms):.1f}",
            f"{median(each.wall_ms):.1f}",
            f"{median(each.scan_ms):.2f}" if each.scan_ms else "",
            f"{each.stored_bytes * each.per_hour / 1e6:.1f}" if each.stored_bytes else "",
            f"{each.index_seconds * each.per_hour:.2f}" if each.index_seconds else "",
            f"{each.peak_bytes / 1e6:.0f}",
        )
    return table


def verdict(text: str, met: bool) -> str:
    """One line of the report on aims."""
    return f"{text}: {'met' if met else 'missed'}"


def aims(figures: Sequence[Figures]) -> Iterator[str]:
    """Yield a line for each aim: the measurement and whether it is met."""
    by: dict[tuple[str, int], Figures] = {(each.method, each.minutes): each for each in figures}
    for method, score_aim, span_aim in (("fp32", 1e-6, 1e-3), ("fp16", 1e-3, 0.05)):
        for minutes in _MINUTES:
            theirs, ours = by.get(("official", minutes)), by.get((method, minutes))
            if theirs and ours:
                found = compare_answers(theirs.answers, ours.answers)
                text = (
                    f"{method}, {minutes} min: order of the first {_TOP} equals the official one in "
                    f"{found.same_order} of {found.queries} queries, "
                    f"scores differ by at most {found.worst_score:.1e} (aim {score_aim:.0e}), "
                    f"boundaries by {found.worst_span_seconds:.1e} s (aim {span_aim:.0e})"
                )
                met = found.worst_score <= score_aim and found.worst_span_seconds <= span_aim
                yield verdict(text, met and found.same_order == found.queries)
    theirs, ours = by.get(("official max", 10)), by.get(("ours max", 10))
    if theirs and ours:
        found = compare_answers(theirs.answers, ours.answers)
        yield (
            f"published pooling (max), 10 min: order equals the official one in {found.same_order} of {found.queries} "
            f"queries, scores differ by {found.worst_score:.1e}, boundaries by {found.worst_span_seconds:.1e} s"
        )
    for method in ("fp32", "fp16"):
        hour, two = by[method, 60], by[method, 120]
        if ("official", 60) in by:
            ratio = median(by["official", 60].cpu_ms) / median(hour.cpu_ms)
            yield verdict(
                f"{method}, 1 h: {ratio:.0f} times the official speed (aim 50)", ratio >= 50
            )
        scan = median(hour.scan_ms)
        yield verdict(f"{method}, 1 h: scan alone {scan:.2f} ms (aim 1)", scan <= 1.0)
        growth = median(two.cpu_ms) / median(hour.cpu_ms)
        yield verdict(f"{method}: 2 h cost {growth:.2f} of 1 h (aim 1.2)", growth <= 1.2)
    size = by["fp16", 60].stored_bytes / 1e6
    yield verdict(f"fp16: {size:.1f} MB an hour beyond frame features (aim 12)", size <= 12)


def main(
    official: Annotated[
        Path | None,
        typer.Option(
            envvar="SCANONCE_MODELSCOPE",
            help="site-packages with modelscope; without it, the official rows are omitted.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Also write the medians as JSON.")] = None,
) -> None:
    """Print times, sizes and agreement with the official implementation."""
    BENCH.mkdir(exist_ok=True)
    console.print(f"{processor()}, {num_cores()} cores, each method on one thread")
    methods: list[Method] = ["uncached", "fp32", "fp16", "moment-detr", "windows"]
    if official is not None and (official / "modelscope/models/multi_modal/soonet").is_dir():
        methods.insert(0, "official")
    else:
        official = None
        console.print(
            "The official implementation is omitted: run `pip install --no-deps modelscope==1.40.2` in any environment "
            "and give its site-packages by --official."
        )
    checkpoint()
    figures = [
        measure_apart(method, minutes, official) for minutes in _MINUTES for method in methods
    ]
    extra: list[Figures] = []
    if official is not None:
        extra = [measure_apart(method, 10, official) for method in ("official max", "ours max")]
    console.print(times_table(figures))
    for line in aims([*figures, *extra]):
        console.print(line)
    if save is not None:
        rows = [
            {
                "method": each.method,
                "minutes": each.minutes,
                "cpu_ms": median(each.cpu_ms),
                "wall_ms": median(each.wall_ms),
                "scan_ms": median(each.scan_ms) if each.scan_ms else None,
                "stored_bytes": each.stored_bytes,
                "index_seconds": each.index_seconds,
                "peak_bytes": each.peak_bytes,
            }
            for each in figures
        ]
        save.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
