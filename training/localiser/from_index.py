"""Training of a localiser on an existing index: its stored frames and annotated queries; nothing is decoded.

    trained = train_on_index(Path("index"), Path("train.jsonl"), Path("localiser"), Choices(epochs=20), work=...)
    trained.compared["trained"].library[0.5].value         # R@1 on held-out videos

The network is SOONet (arXiv 2303.08345) with anchors of 2 to 16 seconds, as published for MAD at 5 frames a second, and
with more scales if the annotated moments are longer. The queries are encoded by the index's own encoder, and the
localiser has its fingerprint, so `scanonce localise --localiser OUT` accepts it for indexes of this encoder only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.checkpoint import write_soonet
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.trained import BUNDLED_LOCALISER, TrainedLocaliser, choose_localiser
from scanonce.search.settings import SearchSettings
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.training_free import TrainingFree
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.errors import ConfigError, LocaliserError
from scanonce.storage.files import expanded, make_folder, write_whole
from scanonce.storage.index import Index
from scanonce.storage.manifest import Manifest, check_encoder
from scanonce.storage.records import Video
from scanonce.training.bars import progress_bar
from scanonce.training.curves import PLOT_NAME, Curves
from scanonce.training.evaluation.annotations import read_annotations
from scanonce.training.localiser.compare import Compared, Competitor, compare
from scanonce.training.localiser.examples import (
    AnnotatedVideos,
    EncodedTexts,
    RandomLibraries,
    StoredMoments,
    ValidationLibraries,
    annotate,
    encode_texts,
    split_off,
)
from scanonce.training.localiser.recipe import LocaliserRecipe
from scanonce.training.localiser.run import LocaliserRun, save_checkpoint, train_localiser
from scanonce.training.processes import OneProcess, Processes

STATE_NAME, MISSING_NAME = "state.pt", "missing.txt"
"""Files in the work folder."""
TRAINED = "trained"
"""Name of the new localiser in the table."""
CURVE_TIOUS = (0.0, 0.4)
"""Values of `SoonetConfig.curve_tiou` that are tried on held-out videos."""

_FINEST_SECONDS = 2.0
_FEWEST_SCALES, _MOST_SCALES = 4, 7
_COVERED = 0.9
"""Share of the annotated moments that are no longer than the longest anchors."""
_LONG_FILM_SECONDS = 128.0
"""Length of a window of 64 anchors of the finest scale; in shorter videos most of it would be padding."""
_FEWEST_STEPS, _EPOCHS = 1500, 20
_MOST_NAMES = 20  # names of missing videos that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Options of a training; index and annotations decide the rest."""

    benchmark: str = "scanonce"
    """Benchmark of the annotations, see `training.evaluation.annotations`."""
    validation: Path | None = None
    """Annotations to validate on, about videos of the same index."""
    validation_share: float = 0.1
    """Share of the videos that is held out if there is no such file; 0: none."""
    epochs: int | None = None
    """Passes over the queries."""
    steps: int | None = None
    """Steps instead of epochs. If both are None: 20 epochs, as in the paper, but at least 1,500 steps."""
    libraries_per_step: int | None = None
    """Small libraries whose gradients are averaged in a step; None: one per process."""
    learning_rate: float | None = None
    """None: 0.001, as in the paper; 0.002 for networks of less than half its width; a fifth with `begin_with`."""
    seed: int = 0
    begin_with: str | None = None
    """Localiser with the initial weights: "bundled", a folder, or a published file."""
    resume: bool = False
    save_every: int = 500
    """Steps between saved states; there are at most two minutes between them too."""
    minutes_cap: float = math.inf

    def __post_init__(self) -> None:
        """Raise ConfigError for values that exclude each other."""
        if self.epochs is not None and self.steps is not None:
            raise ConfigError("give epochs or steps, not both: each decides the length of the run")


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of a training."""

    steps: int
    seconds: float
    compared: dict[str, Compared]
    """Figures on the held-out videos, by the name of the localiser; empty if there are none."""


def train_on_index(
    index_dir: Path,
    annotations: Path,
    out: Path,
    choices: Choices,
    *,
    work: Path,
    models: ModelSettings | None = None,
    processes: Processes | None = None,
    console: Console | None = None,
) -> Trained:
    """Train a localiser and write it to a folder.

    Args:
        index_dir: index of evenly sampled frames; it is only read.
        annotations: queries and their moments; videos are matched by their file names.
        out: folder for the localiser, for `models.soonet.trained.load_localiser`.
        choices: options of the training.
        work: folder for the state of the run and its curves.
        models: number format of the text encoder.
        processes: processes that train together; None: this one alone, on the CPU.
        console: terminal for progress and figures; None: nothing is shown.

    Raises:
        ConfigError: annotations or choices are not valid, or none of the annotated videos is in the index.
        IndexDirectoryError: there is no usable index, or a folder cannot be written.
        LocaliserError: the index was sampled by key frames, or the initial localiser does not fit it.
        EncoderError: the index's encoder cannot be loaded.
    """
    processes = processes or OneProcess(torch.device("cpu"))
    console = console or Console(quiet=True)
    index, videos = _open_index(index_dir)
    to_train, held_out = _read_queries(videos, annotations, choices, work, console)
    words = [each.text for part in (to_train, held_out) for each in part.queries]
    with progress_bar("reading queries", console=console, is_transient=True) as report:
        texts = encode_texts(_open_encoder(index, models), words, report)
    initial = _initial_network(choices.begin_with, index.manifest)
    config = initial.config if initial else network_for(index.manifest, to_train, texts)
    store = index.features
    examples = RandomLibraries(
        StoredMoments(to_train, texts, store, config.grid), seed=choices.seed
    )
    judged = StoredMoments(held_out, texts, store, config.grid)
    validation = ValidationLibraries(judged, seed=choices.seed) if held_out.videos else None
    run = LocaliserRun(
        recipe_for(choices, config, examples, processes.count),
        config,
        examples,
        validation or [],
        cap_seconds=60 * choices.minutes_cap,
        processes=processes,
        weights=initial.state_dict() if initial else None,
        data=_digest(index.manifest, to_train, held_out, initial),
    )
    if choices.resume and (work / STATE_NAME).exists():
        run.resume(work / STATE_NAME)
    _report_start(run, to_train, held_out, console)
    if initial and run.at.step == 0:
        run.validate()  # if training makes the initial weights worse, these are kept
    _train(run, work, console)
    compared: dict[str, Compared] = {}
    if run.is_first:
        model = save_checkpoint(run, out, curve_tiou=initial.config.curve_tiou if initial else 0.0)
        if validation:
            with progress_bar("asking queries", console=console, is_transient=True) as report:
                compared = compare(
                    _competitors(model, index.manifest, choices.begin_with),
                    judged,
                    validation.groups,
                    texts=texts,
                    store=store,
                    clips=index.manifest.grid,
                    on_progress=report,
                )
            _keep_better(model, compared, out)
        _write_figures(out, run, to_train, held_out, compared)
    processes.wait()
    return Trained(run.at.step, run.at.elapsed_seconds, compared)


def _train(run: LocaliserRun, work: Path, console: Console) -> None:
    state = work / STATE_NAME
    if run.is_first:
        make_folder(work)
        with Curves(work, resumed_step=run.at.step) as curves:
            train_localiser(run, state, console, curves)
            curves.draw(work / PLOT_NAME)
    else:
        train_localiser(run, state)
    run.processes.wait()


# --- Data ---


def _open_index(index_dir: Path) -> tuple[Index, list[Video]]:
    """Return an index, whose catalogue is closed, and its videos."""
    with Index.open(expanded(index_dir).absolute(), read_only=True) as index:
        videos = [video for video in index.catalog.videos(states=SEARCHABLE) if video.num_frames]
    sampling = index.manifest.sampling
    if sampling != "uniform":
        raise LocaliserError(
            f"a trained localiser needs evenly sampled frames; the index at {index_dir} has {sampling}. "
            "Index without --keyframes into another folder, and train on that index"
        )
    return index, videos


def _read_queries(
    videos: Sequence[Video], annotations: Path, choices: Choices, work: Path, console: Console
) -> tuple[AnnotatedVideos, AnnotatedVideos]:
    """Return the annotated videos to train on, and those held out."""
    found = annotate(videos, read_annotations(annotations, choices.benchmark))
    _report_left_out(annotations, found, work / MISSING_NAME, console)
    if choices.validation is not None:
        held_out = annotate(videos, read_annotations(choices.validation, choices.benchmark))
        listed = work / f"validation-{MISSING_NAME}"
        _report_left_out(choices.validation, held_out, listed, console)
    elif choices.validation_share > 0:
        found, held_out = split_off(found, choices.validation_share, seed=choices.seed)
    else:
        held_out = AnnotatedVideos((), ())
    if not found.queries:
        raise ConfigError(
            f"no query of {annotations} is about a span of a video of the index: videos are matched by file names "
            "without the extension. Check the names, the benchmark, and that the videos are indexed"
        )
    return found, held_out


def _open_encoder(index: Index, models: ModelSettings | None) -> ClipEncoder:
    encoder = load_encoder(index.manifest.encoder, models, towers="text")
    check_encoder(index.layout, index.manifest, encoder.name, encoder.fingerprint)
    return encoder


def _choose_localiser(name: str, manifest: Manifest) -> TrainedLocaliser | None:
    """Return the localiser of that name for this index, see `models.soonet.trained.choose_localiser`."""
    return choose_localiser(
        name,
        fingerprint=manifest.fingerprint,
        dim=manifest.dim,
        sampling=manifest.sampling,
        fps=manifest.sample_fps,
    )


def _initial_network(name: str | None, manifest: Manifest) -> Soonet | None:
    """Return the initial network with mean pooling, the corrected mask and the fingerprint of this encoder."""
    if name is None:
        return None
    localiser = _choose_localiser(name, manifest)
    if localiser is None:
        raise LocaliserError(
            f'training cannot begin with "{name}", which has no weights: give "{BUNDLED_LOCALISER}", a folder or a '
            "published .pth file, or no localiser"
        )
    config = replace(
        localiser.model.config,
        stage2_pool="mean",
        legacy_mask=False,
        encoder_fingerprint=manifest.fingerprint,
    )
    model = Soonet(config)
    model.load_state_dict(localiser.model.state_dict())
    return model


# --- Network and recipe ---


def network_for(
    manifest: Manifest, annotated: AnnotatedVideos, texts: EncodedTexts
) -> SoonetConfig:
    """Return the network for an index and its annotations; for MAD at 5 frames a second it is the published one.

    Anchors of the finest scale have 2 s (one frame if the index has less than one in 2 s). There are four scales, or up
    to seven, so that nine of ten annotated moments are no longer than the longest anchors. The width is that of the
    frames, up to 512. Windows have 64 anchors, or 16 if most videos are shorter than that.
    """
    fps = manifest.sample_fps
    snippet_length = max(1, round(_FINEST_SECONDS * fps))
    lengths = [span.duration_seconds for each in annotated.queries for span in each.spans]
    coarsest = snippet_length / fps * 2 ** (_FEWEST_SCALES - 1)
    doublings = math.ceil(math.log2(max(1.0, float(np.quantile(lengths, _COVERED)) / coarsest)))
    num_scales = min(_MOST_SCALES, _FEWEST_SCALES + doublings)
    durations = [video.duration_seconds for video in annotated.videos]
    hidden_dim = 512 if manifest.dim >= 512 else max(32, manifest.dim // 32 * 32)
    longest_anchor = snippet_length * 2 ** (num_scales - 1)  # frames
    return SoonetConfig(
        hidden_dim=hidden_dim,
        snippet_length=snippet_length,
        num_scales=num_scales,
        fps=fps,
        window=64 if float(np.median(durations)) > _LONG_FILM_SECONDS else 16,
        num_heads=max(1, hidden_dim // 64) if hidden_dim >= 256 else hidden_dim // 32,
        stage2_pool="mean",
        legacy_mask=False,
        max_positions=max(SoonetConfig().max_positions, longest_anchor),
        frame_dim=manifest.dim,
        text_dim=texts.features.states.shape[1],
        text_features="states",
        encoder_fingerprint=manifest.fingerprint,
    )


def recipe_for(
    choices: Choices, config: SoonetConfig, examples: RandomLibraries, num_processes: int = 1
) -> LocaliserRecipe:
    """Return steps and rates, with a validation after each epoch, but at least 100 steps apart."""
    per_step = choices.libraries_per_step or num_processes

    def steps_of(epochs: int) -> int:
        return -(-examples.num_libraries(epochs) // per_step)

    if choices.steps is not None:
        steps = choices.steps
    elif choices.epochs is not None:
        steps = steps_of(choices.epochs)
    else:
        steps = max(_FEWEST_STEPS, steps_of(_EPOCHS))
    usual = (1e-3 if config.hidden_dim > 256 else 2e-3) * (0.2 if choices.begin_with else 1.0)
    return LocaliserRecipe(
        seed=choices.seed,
        steps=steps,
        libraries_per_step=per_step,
        learning_rate=choices.learning_rate or usual,
        warm_up_steps=max(1, min(100, steps // 10)),
        evaluate_every=max(100, steps_of(1)),
        save_every=choices.save_every,
    )


def _digest(
    manifest: Manifest, to_train: AnnotatedVideos, held_out: AnnotatedVideos, initial: Soonet | None
) -> str:
    """Digest of the data of training and validation, and of the initial weights."""
    digest = hashlib.sha256(manifest.fingerprint.encode())
    for part in (to_train, held_out):
        digest.update(repr([video.uid for video in part.videos]).encode())
        digest.update(repr(part.queries).encode())
    if initial is not None:
        for tensor in initial.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


# --- Comparison and figures ---


def _competitors(
    model: Soonet, manifest: Manifest, begin_with: str | None
) -> dict[str, Competitor]:
    """Return all localisers that are compared, the training-free one first."""
    settings = SearchSettings()
    longest, overlap = settings.longest_moment_seconds, settings.nms_overlap

    def competitor(trained: TrainedLocaliser) -> Competitor:
        localiser = SoonetLocaliser(trained, overlap=overlap, longest_seconds=longest)
        return Competitor(localiser, trained)

    free = TrainingFree(longest_seconds=longest, overlap=overlap)
    named: dict[str, TrainedLocaliser | None] = {
        BUNDLED_LOCALISER: _choose_localiser("auto", manifest)
    }
    if begin_with not in (None, BUNDLED_LOCALISER):
        named[f"began with {begin_with}"] = _choose_localiser(str(begin_with), manifest)
    for tiou in CURVE_TIOUS:
        edged = _with_config(model, replace(model.config, curve_tiou=tiou))
        named[_trained_name(tiou)] = TrainedLocaliser(TRAINED, edged, TRAINED)
    trained = {name: competitor(each) for name, each in named.items() if each is not None}
    return {"training-free": Competitor(free), **trained}


def _trained_name(curve_tiou: float) -> str:
    return f"{TRAINED}, edges of the curve" if curve_tiou else TRAINED


def _with_config(model: Soonet, config: SoonetConfig) -> Soonet:
    """Return the same weights, float32, with a configuration of the same shapes."""
    copy = Soonet(config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _keep_better(model: Soonet, compared: Mapping[str, Compared], out: Path) -> None:
    """Write the localiser with the better `curve_tiou` on the held-out queries."""
    best = max(CURVE_TIOUS, key=lambda tiou: compared[_trained_name(tiou)].selection_metric)
    config = replace(model.config, curve_tiou=best)
    write_soonet(_with_config(model, config).half(), out)


def _write_figures(
    out: Path,
    run: LocaliserRun,
    to_train: AnnotatedVideos,
    held_out: AnnotatedVideos,
    compared: Mapping[str, Compared],
) -> None:
    """Write ``training.json`` next to the weights: recipe, data and figures."""
    values = {
        "recipe": asdict(run.recipe),
        "steps": run.at.step,
        "seconds": run.at.elapsed_seconds,
        "kept step": run.best.step if run.best else run.at.step,
        "videos": {"trained": len(to_train.videos), "held out": len(held_out.videos)},
        "sentences": {"trained": len(to_train.queries), "held out": len(held_out.queries)},
        "held out": {name: asdict(figures) for name, figures in compared.items()},
    }
    content = json.dumps(values, indent=2) + "\n"
    write_whole(out / "training.json", lambda file: file.write(content.encode()))


# --- Reports ---


def _report_left_out(path: Path, found: AnnotatedVideos, listed: Path, console: Console) -> None:
    """Report the annotations that are not used; if many videos are missing, a file lists them."""
    if found.missing:
        shown = found.missing[:_MOST_NAMES]
        more = len(found.missing) - len(shown)
        console.print(
            f"videos of {path} that are not in the index: {len(found.missing):,}, "
            f"{', '.join(shown)}{f' and {more:,} more, all in {listed}' if more else ''}",
            soft_wrap=True,
            markup=False,
        )
        if more:
            content = "".join(f"{name}\n" for name in found.missing)
            write_whole(listed, lambda file: file.write(content.encode()))
    for count, why in (
        (found.whole, "without a span"),
        (found.outside, "without an answer inside the video"),
    ):
        if count:
            console.print(f"left out of {path}: {count:,} {why}", soft_wrap=True, markup=False)


def _report_start(
    run: LocaliserRun, to_train: AnnotatedVideos, held_out: AnnotatedVideos, console: Console
) -> None:
    config, recipe = run.config, run.recipe
    anchors = ", ".join(f"{length / config.fps:g}" for length in config.grid.lengths)
    begun = f", {run.at.step:,} of them done" if run.at.step else ""
    console.print(
        f"{len(to_train.queries):,} queries about {len(to_train.videos):,} videos to train on, "
        f"{len(held_out.queries):,} about {len(held_out.videos):,} held out; anchors of {anchors} s; "
        f"{recipe.steps:,} steps of {recipe.libraries_per_step} libraries{begun}; "
        f"{run.processes.count} x {run.processes.device.type}",
        soft_wrap=True,
    )
