"""Fine-tunes a dual encoder on videos with captions, as CLIP4Clip does (arXiv 2104.08860).

    captions = read_captions(Path("captions.csv"), videos=Path("films"))
    recipe = Recipe(head="transformer", epochs=10, encoder_lr=1e-6)
    finetune(recipe, "bundled", captions, Path("tuned"), work=Path("tuned.work"))
    load_encoder("tuned")  # an encoder as any other

Frames are decoded once, into the folder of work. Every so often the state of the run is saved there; a run that goes
on from it comes to the weights of one that was never stopped, to the bit on a CPU. Several processes share each batch
and come to the weights of one process with the whole of it, up to rounding.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from scanonce.models.encoders.hub import find_folder
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.runtime import pick_device
from scanonce.storage.errors import ConfigError
from scanonce.storage.files import make_folder
from scanonce.training.clip.batches import ClipSet, hold_out
from scanonce.training.clip.captions import CaptionedVideos
from scanonce.training.clip.card import write_card
from scanonce.training.clip.frame_cache import CacheProblem, FrameCache, VideoPart
from scanonce.training.clip.model import TrainedClip, open_encoder, write_checkpoint
from scanonce.training.clip.recipe import Recipe
from scanonce.training.clip.run import Run, Validated
from scanonce.training.curves import CSV_NAME, Curves
from scanonce.training.processes import OneProcess, Processes

STATE_NAME, FRAMES_NAME = "state.pt", "frames"
"""In the folder of work."""
PICTURE_NAME = "curves.png"
"""In the folder that comes out."""

_SECONDS_BETWEEN_SAVES = 600.0


class Observer:
    """Told how a fine-tuning goes, in the first process; does nothing."""

    def decoding(self, done: int, total: int) -> None:
        """So many of all videos have their frames."""

    def problems(self, problems: Sequence[CacheProblem]) -> None:
        """Videos that are left out or not whole; none, where all is well."""

    def started(self, run: Run) -> None:
        """The first step is next; after an interruption, ``run.at`` says where."""

    def stepped(self, run: Run) -> None:
        """A step is done."""

    def validated(self, found: Validated) -> None:
        """Figures on what was held out."""


def finetune(
    recipe: Recipe,
    encoder: str,
    captions: CaptionedVideos,
    out: Path,
    *,
    work: Path,
    validation: CaptionedVideos | None = None,
    processes: Processes | None = None,
    resume: bool = False,
    minutes_cap: float = math.inf,
    command: str = "",
    observer: Observer | None = None,
) -> Run:
    """Trains, and writes the checkpoint folder.

    Args:
        recipe: what is done.
        encoder: to start from: "bundled", a folder or a hub id. A head of the recipe's kind beside it goes on too.
        captions: to train on; a share of the videos is held out where no ``validation`` is given.
        out: folder to be written; must be missing or empty. Whole or not at all: it is there when all is done.
        work: folder of the frames and of the state; may be deleted afterwards. Frames are used again by other runs.
        validation: held out; None: the recipe's share of ``captions``.
        processes: who trains together; None: this one alone, on the best device.
        resume: go on from the state in ``work``, where there is one.
        minutes_cap: of steps and validations; the learning rates are brought down in time.
        command: what the card says it was made by.
        observer: told how it goes.

    Returns:
        The run at its end; its model has the weights that were written.

    Raises:
        ConfigError: a package is missing, ``out`` is not empty, ``work`` has the state of another or of an unfinished
            run, there are too few clips, or the loss is no longer a number.
        EncoderError: the encoder cannot be used.
        IndexDirectoryError: a folder cannot be written.
    """
    observer = observer or Observer()
    processes = processes or OneProcess(pick_device())
    _check_packages()
    _check_folders(out, work, resume)
    if validation is None:
        captions, validation = hold_out(captions, recipe.validation_share, recipe.seed)
    source = open_encoder(encoder, processes.device)
    is_first = processes.index == 0
    clips, held = _open_clips(
        captions,
        validation,
        recipe,
        source.preprocessing,
        work,
        observer if is_first else Observer(),
    )
    run = Run(
        TrainedClip(source, recipe), recipe, clips, held, processes, cap_seconds=60 * minutes_cap
    )
    state = work / STATE_NAME
    if state.exists():  # only with ``resume``
        run.resume(state)
    processes.wait()  # until all have looked at both folders, nothing in them is changed
    if is_first:
        with Curves(work, resumed_step=run.at.step) as curves:
            train(run, state, curves, observer)
            _write(run, encoder, out, work, curves, command)
        state.unlink()
    else:
        train(run, None, None, Observer())
    processes.wait()
    return run


def _check_packages() -> None:
    """Now, not after hours of decoding."""
    for name in ("tensorboard", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f'training needs {name}: pip install -e ".[train]"')


def _check_folders(out: Path, work: Path, resume: bool) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not empty: give another folder for the checkpoint")
    if (work / STATE_NAME).exists() and not resume:
        raise ConfigError(
            f"{work / STATE_NAME} is the state of a run that has not ended: --resume goes on with it; remove it to "
            "start anew"
        )


def _open_clips(
    captions: CaptionedVideos,
    validation: CaptionedVideos,
    recipe: Recipe,
    preprocessing: Preprocessing,
    work: Path,
    observer: Observer,
) -> tuple[ClipSet, ClipSet | None]:
    """Frames of all clips from the cache; a clip whose video cannot be used is left out."""
    parts = [*captions.parts, *validation.parts]
    cache = FrameCache.build(
        work / FRAMES_NAME,
        [VideoPart(part.video, part.span) for part in parts],
        preprocessing=preprocessing,
        fps=recipe.fps,
        max_frames=recipe.max_frames,
        observe=observer.decoding,
    )
    observer.problems(cache.problems)

    def clips(numbers: Sequence[int]) -> ClipSet:
        said = [parts[number].captions for number in numbers]
        return ClipSet(said, lambda place: cache.frames(numbers[place]))

    first = len(captions.parts)
    held = [number for number in cache.kept if number >= first]
    if not held and (validation.parts or recipe.validation_share > 0):
        raise ConfigError(
            "there is nothing to validate on: give more videos, --validation, or --validation-share 0"
        )
    return clips([n for n in cache.kept if n < first]), clips(held) if held else None


def train(run: Run, state: Path | None, curves: Curves | None, observer: Observer) -> None:
    """Runs to the end, with validations and saved states on the way.

    Args:
        run: new or resumed.
        state: file for `Run.resume`, of the first process; None: nothing is saved.
        curves: of the first process; None: nothing is logged.
        observer: told how it goes.
    """

    def validate() -> None:
        found = run.validate()
        if found is not None:
            observer.validated(found)
            if curves is not None:
                curves.log(run.at.step, found.as_curves())

    observer.started(run)
    if run.at.step == 0:
        validate()
    saved = time.monotonic()
    while not run.is_done:
        run.step()
        if curves is not None:
            rates = {f"rate/{name}": rate for name, rate in run.rates.items()}
            curves.log(run.at.step, {"loss/train": run.at.loss, **rates})
        observer.stepped(run)
        if run.is_validation_due:
            validate()
        is_late = time.monotonic() - saved > _SECONDS_BETWEEN_SAVES
        if state is not None and (run.at.step % run.recipe.save_every == 0 or is_late):
            run.save(state)
            saved = time.monotonic()
    if state is not None:
        run.save(state)  # the checkpoint is not written yet


def _write(run: Run, encoder: str, out: Path, work: Path, curves: Curves, command: str) -> None:
    """Puts the checkpoint into its place, all at once."""
    unfinished = out.with_name(f".{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_folder(unfinished)
    write_checkpoint(run.take_kept(), find_folder(encoder), unfinished)
    curves.draw(unfinished / PICTURE_NAME)
    shutil.copyfile(work / CSV_NAME, unfinished / CSV_NAME)
    write_card(run, encoder, unfinished, command)
    if out.exists():
        out.rmdir()
    unfinished.rename(out)
