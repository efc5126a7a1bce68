"""Fine-tuning of a dual encoder on videos with captions, as CLIP4Clip does it (arXiv 2104.08860).

    captions = read_captions(Path("captions.csv"), videos=Path("films"))
    recipe = Recipe(head="transformer", epochs=10, encoder_lr=1e-6)
    finetune(recipe, "bundled", captions, Path("tuned"), work=Path("tuned.work"))
    load_encoder("tuned")  # the result is an ordinary encoder

Frames are decoded once, into the work folder, and the state of the run is saved there regularly. A resumed run ends
with the weights of an uninterrupted one, to the bit on a CPU. Several processes that share each batch end with the
weights of one process with the whole batch, up to rounding.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
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
from scanonce.training.clip.run import ClipRun
from scanonce.training.curves import CSV_NAME, PLOT_NAME, Curves
from scanonce.training.loop import Callbacks, train
from scanonce.training.processes import OneProcess, Processes

STATE_NAME, FRAMES_NAME = "state.pt", "frames"
"""File and folder in the work folder."""


class FinetuneCallbacks(Callbacks):
    """Calls during a fine-tuning, in the first process; these do nothing."""

    def decoding(self, done: int, total: int) -> None:
        """Called with the number of videos whose frames are decoded, and of all videos."""

    def problems(self, problems: Sequence[CacheProblem]) -> None:
        """Called with the videos that are left out or incomplete; with none if there are no problems."""


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
    callbacks: FinetuneCallbacks | None = None,
) -> ClipRun:
    """Train, and write the checkpoint folder.

    Args:
        recipe: recipe of the training.
        encoder: encoder to start from: "bundled", a folder or a hub id. Its head is trained further if it is of the
            recipe's kind.
        captions: captions to train on; without ``validation`` a share of the videos is held out.
        out: folder to be written; must be missing or empty. It appears when everything is done.
        work: folder of the frames and of the state; may be deleted afterwards. Other runs use its frames again.
        validation: captions to validate on; None: the recipe's share of ``captions``.
        processes: processes that train together; None: this one alone, on the best device.
        resume: continue from the state in ``work``, if there is one.
        minutes_cap: end the run after these minutes of steps and validations; learning rates reach their end in time.
        command: command that the card names.
        callbacks: called as the run proceeds.

    Returns:
        The run at its end; its model has the weights that were written.

    Raises:
        ConfigError: a package is missing, ``out`` is not empty, ``work`` has the state of another or of an unfinished
            run, there are too few clips, or the loss is no longer a number.
        EncoderError: the encoder cannot be used.
        IndexDirectoryError: a folder cannot be written.
    """
    processes = processes or OneProcess(pick_device())
    is_first = processes.index == 0
    callbacks = callbacks if callbacks is not None and is_first else FinetuneCallbacks()
    _check_packages()
    _check_folders(out, work, resume)
    if validation is None:
        captions, validation = hold_out(captions, recipe.validation_share, recipe.seed)
    source = open_encoder(encoder, processes.device)
    clips, held = _open_clips(captions, validation, recipe, source.preprocessing, work, callbacks)
    model = TrainedClip(source, recipe)
    run = ClipRun(model, recipe, clips, held, processes, cap_seconds=60 * minutes_cap)
    state = work / STATE_NAME
    if state.exists():  # only if ``resume``: see `_check_folders`
        run.resume(state)
    processes.wait()  # nothing in the folders changes before all processes have checked them
    if is_first:
        with Curves(work, resumed_step=run.at.step) as curves:
            train(run, state, curves, callbacks)
            _write(run, encoder, out, work, curves, command)
        state.unlink()
    else:
        train(run)
    processes.wait()
    return run


def _check_packages() -> None:
    """Check for packages before hours of decoding."""
    for name in ("tensorboard", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f'training needs {name}: pip install -e ".[train]"')


def _check_folders(out: Path, work: Path, resume: bool) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty: give another folder for the checkpoint")
    if (work / STATE_NAME).exists() and not resume:
        raise ConfigError(
            f"{work / STATE_NAME} is the state of an unfinished run: continue it with --resume, or remove the file to "
            "start from scratch"
        )


def _open_clips(
    captions: CaptionedVideos,
    validation: CaptionedVideos,
    recipe: Recipe,
    preprocessing: Preprocessing,
    work: Path,
    callbacks: FinetuneCallbacks,
) -> tuple[ClipSet, ClipSet | None]:
    """Return the clips to train and to validate on; a clip is left out if its video cannot be decoded."""
    parts = [*captions.parts, *validation.parts]
    cache = FrameCache.build(
        work / FRAMES_NAME,
        [VideoPart(part.video, part.span) for part in parts],
        preprocessing=preprocessing,
        fps=recipe.fps,
        max_frames=recipe.max_frames,
        on_progress=callbacks.decoding,
    )
    callbacks.problems(cache.problems)

    def clips(numbers: Sequence[int]) -> ClipSet:
        of_each = [parts[number].captions for number in numbers]
        return ClipSet(of_each, lambda position: cache.frames(numbers[position]))

    first = len(captions.parts)
    held = [number for number in cache.kept if number >= first]
    if not held and (validation.parts or recipe.validation_share > 0):
        raise ConfigError(
            "there is nothing to validate on: give more videos, --validation, or --validation-share 0"
        )
    return clips([n for n in cache.kept if n < first]), clips(held) if held else None


def _write(run: ClipRun, encoder: str, out: Path, work: Path, curves: Curves, command: str) -> None:
    """Write the checkpoint folder atomically."""
    unfinished = out.with_name(f".{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_folder(unfinished)
    write_checkpoint(run.take_kept(), find_folder(encoder), unfinished)
    curves.draw(unfinished / PLOT_NAME)
    shutil.copyfile(work / CSV_NAME, unfinished / CSV_NAME)
    write_card(run, encoder, unfinished, command)
    if out.exists():
        out.rmdir()
    unfinished.rename(out)
