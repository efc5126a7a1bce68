"""Trains a localiser on an existing index: its stored frames and annotated sentences, nothing is decoded.

    trained = train_on_index(Path("index"), Path("train.jsonl"), Path("localiser"), Choices(epochs=20))
    trained.compared["trained"].library[0.5].value         # R@1 on held-out videos

The network is SOONet (arXiv 2303.08345) with anchors of 2 to 16 seconds, as published for MAD at 5 frames a second, and
of more scales where the annotated moments are longer. The index's own encoder reads the sentences, and its fingerprint
goes into the localiser, so that `scanonce localise --localiser OUT` takes it for this index and for no other encoder's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.checkpoint import read_soonet, write_soonet
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.trained import BUNDLED_LOCALISER, TrainedLocaliser, choose_localiser
from scanonce.search.localise import Localiser
from scanonce.search.settings import SearchSettings
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.training_free import TrainingFree
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.errors import ConfigError, LocaliserError
from scanonce.storage.files import make_folder, write_whole
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, check_encoder, read_manifest
from scanonce.storage.records import Video
from scanonce.storage.stores.features import FeatureStore
from scanonce.training.curves import Curves
from scanonce.training.evaluation.annotations import read_annotations
from scanonce.training.localiser.compare import Compared, compare
from scanonce.training.localiser.examples import (
    AnnotatedVideos,
    Drawn,
    Fixed,
    SentenceFeatures,
    StoredMoments,
    annotate,
    encode_sentences,
    split_off,
)
from scanonce.training.localiser.loss import Recipe
from scanonce.training.localiser.run import Run, save_checkpoint, train
from scanonce.training.processes import OneProcess, Processes

STATE_NAME = "state.pt"
PICTURE_NAME = "curves.png"
MISSING_NAME = "missing.txt"
TRAINED = "trained"
"""What the new localiser goes by in the table."""
CURVE_TIOUS = (0.0, 0.4)
"""Tried on held-out videos, see `SoonetConfig.curve_tiou`."""

_FINEST_SECONDS = 2.0
_FEWEST_SCALES, _MOST_SCALES = 4, 7
_COVERED = 0.9
"""Share of the annotated moments that are no longer than the longest anchors."""
_LONG_FILM_SECONDS = 128.0
"""A window of 64 anchors of the finest scale; in shorter videos most of it would be padding."""
_FEWEST_STEPS, _EPOCHS = 1500, 20
_FEW = 20  # names that are shown of many


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a person decides; the rest follows from the index and the annotations."""

    benchmark: str = "scanonce"
    """Whose files the annotations are, see `training.evaluation.annotations`."""
    validation: Path | None = None
    """Annotations to validate on, of videos of the same index."""
    validation_share: float = 0.1
    """Of the videos, held out where there is no such file; 0: none."""
    epochs: int | None = None
    """Passes over the sentences."""
    steps: int | None = None
    """Instead of epochs. Neither: 20 epochs, as in the paper, but at least 1,500 steps."""
    libraries_per_step: int | None = None
    """Small libraries whose gradients make a step; None: one in each process."""
    learning_rate: float | None = None
    """None: 0.001, as in the paper; 0.002 for networks of less than half its width; a fifth with `begin_with`."""
    seed: int = 0
    begin_with: str | None = None
    """Localiser whose weights training begins with: "bundled", a folder, or a published file."""
    resume: bool = False
    save_every: int = 500
    """Steps; after two minutes the state is saved in any case."""
    minutes_cap: float = math.inf

    def __post_init__(self) -> None:
        """Raises ConfigError for values that do not go together."""
        if self.epochs is not None and self.steps is not None:
            raise ConfigError("give epochs or steps, not both: each decides how long the run is")


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out of a run."""

    config: SoonetConfig
    train: AnnotatedVideos
    validation: AnnotatedVideos
    steps: int
    seconds: float
    compared: dict[str, Compared]
    """On the held-out videos, by name of the localiser; empty without any."""


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
    """Trains a localiser and writes it to a folder.

    Args:
        index_dir: An index of evenly sampled frames; it is only read.
        annotations: Sentences and their moments; videos are matched by the names of their files.
        out: Folder for the localiser, as `models.soonet.trained.load_localiser` takes it.
        choices: What is wanted.
        work: Folder for the state of the run and its curves.
        models: Number format of the encoder of sentences.
        processes: Who trains together; this one alone on the CPU where None.
        console: Shows progress and figures; nothing is shown where None.

    Raises:
        ConfigError: annotations or choices are not what they should be, or none fits a video of the index.
        IndexDirectoryError: there is no usable index, or a folder cannot be written.
        LocaliserError: the index was sampled by key frames, or the localiser to begin with does not fit it.
        EncoderError: the index's encoder cannot be loaded.
    """
    processes = processes or OneProcess(torch.device("cpu"))
    console = console or Console(quiet=True)
    index = _open_index(index_dir)
    to_train, held_out = _sentences(index.videos, annotations, choices, work, console)
    encoder = _encoder(index, models)
    every = [each.text for part in (to_train, held_out) for each in part.sentences]
    with _bar("reading sentences", console) as observe:
        texts = encode_sentences(encoder, every, observe)
    begun = _beginning(choices.begin_with, index.manifest)
    config = begun.config if begun else network_for(index.manifest, to_train, texts)
    store = FeatureStore(index.layout.features)
    moments = StoredMoments(to_train, texts, store, config.grid)
    examples = Drawn(moments, seed=choices.seed)
    recipe = recipe_for(choices, config, examples, processes.count)
    judged = StoredMoments(held_out, texts, store, config.grid)
    validation = Fixed(judged, seed=choices.seed) if held_out.videos else None
    run = Run(
        recipe,
        config,
        examples,
        validation or [],
        cap_seconds=60 * choices.minutes_cap,
        processes=processes,
        weights=begun.state_dict() if begun else None,
        data=_digest(index.manifest, to_train, held_out, begun),
    )
    state = work / STATE_NAME
    if choices.resume and state.exists():
        run.resume(state)
    _tell_start(run, to_train, held_out, processes, console)
    if begun and run.at.step == 0:
        run.validate()  # weights that training makes worse are kept as they came
    if run.is_first:
        make_folder(work)
        with Curves(work, resumed_step=run.at.step) as curves:
            train(run, state, console, curves)
            curves.draw(work / PICTURE_NAME)
    else:
        train(run, state)
    processes.wait()
    compared: dict[str, Compared] = {}
    if run.is_first:
        model = save_checkpoint(run, out, curve_tiou=begun.config.curve_tiou if begun else 0.0)
        if validation:
            with _bar("asking held-out sentences", console) as observe:
                compared = compare(
                    _localisers(model, index.manifest, choices.begin_with),
                    judged,
                    validation.groups,
                    texts=texts,
                    store=store,
                    clips=index.manifest.grid,
                    observe=observe,
                )
            config = _keep_better(model, compared, out)
        _write_figures(out, run, to_train, held_out, compared)
    processes.wait()
    return Trained(config, to_train, held_out, run.at.step, run.at.elapsed_seconds, compared)


# --- What is there ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Index:
    layout: IndexLayout
    manifest: Manifest
    videos: list[Video]


def _open_index(index_dir: Path) -> _Index:
    layout = IndexLayout.of(index_dir.expanduser().absolute())
    manifest = read_manifest(layout)
    if manifest.sampling != "uniform":
        raise LocaliserError(
            f"a trained localiser needs evenly sampled frames; the index at {index_dir} has {manifest.sampling}. "
            "Index without --keyframes into another folder, and train on that"
        )
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        videos = [video for video in catalog.videos(states=SEARCHABLE) if video.num_frames]
    return _Index(layout, manifest, videos)


def _sentences(
    videos: Sequence[Video], annotations: Path, choices: Choices, work: Path, console: Console
) -> tuple[AnnotatedVideos, AnnotatedVideos]:
    """To train on, and held out."""
    found = annotate(videos, read_annotations(annotations, choices.benchmark))
    _tell_left_out(annotations, found, work / MISSING_NAME, console)
    if choices.validation is not None:
        held_out = annotate(videos, read_annotations(choices.validation, choices.benchmark))
        _tell_left_out(choices.validation, held_out, work / f"validation-{MISSING_NAME}", console)
    elif choices.validation_share > 0:
        found, held_out = split_off(found, choices.validation_share, seed=choices.seed)
    else:
        held_out = AnnotatedVideos((), ())
    if not found.sentences:
        raise ConfigError(
            f"no sentence of {annotations} is about a span of a video of the index: files are told by their names "
            "without the ending. Check the names, the benchmark, and that the videos are indexed"
        )
    return found, held_out


def _encoder(index: _Index, models: ModelSettings | None) -> ClipEncoder:
    encoder = load_encoder(index.manifest.encoder, models, towers="text")
    check_encoder(index.layout, index.manifest, encoder.name, encoder.fingerprint)
    return encoder


def _fitting(name: str, manifest: Manifest) -> TrainedLocaliser | None:
    """The localiser of that name for this index; see `models.soonet.trained.choose_localiser`."""
    return choose_localiser(
        name,
        fingerprint=manifest.fingerprint,
        dim=manifest.dim,
        sampling=manifest.sampling,
        fps=manifest.sample_fps,
    )


def _beginning(name: str | None, manifest: Manifest) -> Soonet | None:
    """The localiser that training begins with, made to fit: mean pooling, the corrected mask, this encoder."""
    if name is None:
        return None
    localiser = _fitting(name, manifest)
    if localiser is None:
        raise LocaliserError(
            f'training cannot begin with "{name}", which has no weights: give "{BUNDLED_LOCALISER}", a folder or a '
            "published .pth file, or leave it out"
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


# --- What follows from it -----------------------------------------------------------------------


def network_for(
    manifest: Manifest, annotated: AnnotatedVideos, texts: SentenceFeatures
) -> SoonetConfig:
    """The network for an index and its annotations; for MAD at 5 frames a second it is the published one.

    Anchors of the finest scale have 2 s (one frame at less than one in 2 s), and there are four scales, or so many
    more, up to seven, that nine of ten annotated moments are no longer than the longest anchors. The width is that of
    the frames up to 512. Windows have 64 anchors, 16 where most videos are shorter than that.
    """
    fps = manifest.sample_fps
    snippet_length = max(1, round(_FINEST_SECONDS * fps))
    lengths = [span.duration_seconds for each in annotated.sentences for span in each.spans]
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
    choices: Choices, config: SoonetConfig, examples: Drawn, num_processes: int = 1
) -> Recipe:
    """Steps and rates; a validation after each epoch, but not more often than every 100 steps."""
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
    return Recipe(
        seed=choices.seed,
        steps=steps,
        libraries_per_step=per_step,
        learning_rate=choices.learning_rate or usual,
        warm_up_steps=max(1, min(100, steps // 10)),
        evaluate_every=max(100, steps_of(1)),
        save_every=choices.save_every,
    )


def _digest(
    manifest: Manifest, to_train: AnnotatedVideos, held_out: AnnotatedVideos, begun: Soonet | None
) -> str:
    """Tells data apart: what is trained and validated on, and the weights in the beginning."""
    digest = hashlib.sha256(manifest.fingerprint.encode())
    for part in (to_train, held_out):
        digest.update(repr([video.uid for video in part.videos]).encode())
        digest.update(repr(part.sentences).encode())
    if begun is not None:
        for tensor in begun.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


# --- What came out ------------------------------------------------------------------------------


def _localisers(model: Soonet, manifest: Manifest, begin_with: str | None) -> dict[str, Localiser]:
    """All that are compared, the training-free one first."""
    settings = SearchSettings()
    longest, overlap = settings.longest_moment_seconds, settings.nms_overlap

    def by_name(name: str) -> Localiser | None:
        localiser = _fitting(name, manifest)
        if localiser is None:
            return None
        return SoonetLocaliser(localiser, overlap=overlap, longest_seconds=longest)

    found: dict[str, Localiser | None] = {
        "training-free": TrainingFree(longest_seconds=longest, overlap=overlap),
        BUNDLED_LOCALISER: by_name("auto"),
    }
    if begin_with not in (None, BUNDLED_LOCALISER):
        found[f"began with {begin_with}"] = by_name(str(begin_with))
    for tiou in CURVE_TIOUS:
        edged = _with_config(model, replace(model.config, curve_tiou=tiou))
        trained = TrainedLocaliser(TRAINED, edged, TRAINED)
        found[_trained_name(tiou)] = SoonetLocaliser(
            trained, overlap=overlap, longest_seconds=longest
        )
    return {name: localiser for name, localiser in found.items() if localiser is not None}


def _trained_name(curve_tiou: float) -> str:
    return f"{TRAINED}, edges of the curve" if curve_tiou else TRAINED


def _with_config(model: Soonet, config: SoonetConfig) -> Soonet:
    """The same weights, float32, under a configuration that changes no shape."""
    copy = Soonet(config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _keep_better(model: Soonet, compared: Mapping[str, Compared], out: Path) -> SoonetConfig:
    """Writes the localiser with the way to its edges that answers held-out sentences better."""
    best = max(CURVE_TIOUS, key=lambda tiou: compared[_trained_name(tiou)].goodness)
    config = replace(model.config, curve_tiou=best)
    write_soonet(_with_config(model, config).half(), out)
    return read_soonet(out).config


def _write_figures(
    out: Path,
    run: Run,
    to_train: AnnotatedVideos,
    held_out: AnnotatedVideos,
    compared: Mapping[str, Compared],
) -> None:
    """``training.json`` beside the weights: what they were trained on, how, and their figures."""
    values = {
        "recipe": asdict(run.recipe),
        "steps": run.at.step,
        "seconds": run.at.elapsed_seconds,
        "kept step": run.at.best_step if held_out.videos else run.at.step,
        "videos": {"trained": len(to_train.videos), "held out": len(held_out.videos)},
        "sentences": {"trained": len(to_train.sentences), "held out": len(held_out.sentences)},
        "held out": {name: asdict(figures) for name, figures in compared.items()},
    }
    content = json.dumps(values, indent=2) + "\n"
    write_whole(out / "training.json", lambda file: file.write(content.encode()))


# --- What is told -------------------------------------------------------------------------------


@contextmanager
def _bar(what: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _tell_left_out(path: Path, found: AnnotatedVideos, listed: Path, console: Console) -> None:
    """Says what of a file of annotations is not used; many missing videos are listed in a file."""
    if found.missing:
        shown = found.missing[:_FEW]
        more = len(found.missing) - len(shown)
        console.print(
            f"videos of {path} that the index has not: {len(found.missing):,}, "
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


def _tell_start(
    run: Run,
    to_train: AnnotatedVideos,
    held_out: AnnotatedVideos,
    processes: Processes,
    console: Console,
) -> None:
    config, recipe = run.config, run.recipe
    anchors = ", ".join(f"{length / config.fps:g}" for length in config.grid.lengths)
    begun = f", {run.at.step:,} of them done" if run.at.step else ""
    console.print(
        f"{len(to_train.sentences):,} sentences about {len(to_train.videos):,} videos to train on, "
        f"{len(held_out.sentences):,} about {len(held_out.videos):,} held out; anchors of {anchors} s; "
        f"{recipe.steps:,} steps of {recipe.libraries_per_step} libraries{begun}; "
        f"{processes.count} x {processes.device.type}",
        soft_wrap=True,
    )
