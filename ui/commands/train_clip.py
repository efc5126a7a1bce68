"""`scanonce train`: training for a person at a terminal, with progress, figures and where the result lies."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scanonce.training.clip.captions import CaptionedVideos, read_captions
from scanonce.training.clip.finetune import FinetuneCallbacks, finetune
from scanonce.training.clip.frame_cache import CacheProblem
from scanonce.training.clip.recipe import Recipe
from scanonce.training.clip.run import ClipRun, Validated
from scanonce.training.processes import meet_processes

_FEW = 10  # names that are shown of many
_SMOOTHED = 20  # steps behind a rate


def run_train_clip(
    captions: Path,
    out: Path,
    recipe: Recipe,
    *,
    encoder: str,
    videos: Path | None,
    benchmark: str,
    validation: Path | None,
    work: Path | None,
    resume: bool,
    minutes_cap: float | None,
    device: str,
    console: Console | None = None,
) -> ClipRun:
    """Fine-tunes an encoder and tells how it goes; in several processes, only the first one tells.

    Args:
        captions: file of captions, see `training.clip.captions.read_captions`.
        out: folder of the checkpoint.
        recipe: what is done.
        encoder: "bundled", a folder or a hub id.
        videos: folder of the videos; None: where the captions say.
        benchmark: of both files of captions; "scanonce" for own ones.
        validation: further captions to validate on; None: the recipe's share of the first.
        work: folder of frames and state; None: beside ``out``, with ``.work`` behind its name.
        resume: go on with the run in ``work``.
        minutes_cap: end after so many minutes of training.
        device: "auto", "cpu", "cuda" or "cuda:N".
        console: where it is told; None: standard output.

    Raises:
        ConfigError: a file or an option is not what it should be.
        EncoderError: the encoder cannot be used.
        IndexDirectoryError: a folder cannot be written.
    """
    read = read_captions(captions, videos=videos, benchmark=benchmark)
    held = read_captions(validation, videos=videos, benchmark=benchmark) if validation else None
    processes = meet_processes(device)
    out = out.expanduser().absolute()
    work = work.expanduser().absolute() if work else out.with_name(f"{out.name}.work")
    is_first = processes.index == 0
    console = (console or Console()) if is_first else Console(quiet=True)
    _tell_missing([read, held] if held else [read], console)
    try:
        with _Screen(console) as screen:
            run = finetune(
                recipe,
                encoder,
                read,
                out,
                work=work,
                validation=held,
                processes=processes,
                resume=resume,
                minutes_cap=minutes_cap or float("inf"),
                command=shlex.join(["scanonce", *sys.argv[1:]]),
                callbacks=screen,
            )
    finally:
        processes.close()
    _tell_end(run, out, work, console)
    return run


def _tell_missing(read: Sequence[CaptionedVideos], console: Console) -> None:
    missing = [each for captioned in read for each in captioned.missing]
    if not missing:
        return
    left_out = sum(each.num_captions for each in missing)
    names = ", ".join(each.name for each in missing[:_FEW])
    more = f" and {len(missing) - _FEW} more" if len(missing) > _FEW else ""
    console.print(
        f"[yellow]{len(missing)} videos are missing, with {left_out} captions:[/] {escape(names)}{more}",
        soft_wrap=True,
    )


def _tell_end(run: ClipRun, out: Path, work: Path, console: Console) -> None:
    console.print(f"{run.at.step:,} steps in {run.at.elapsed_seconds / 60:.1f} min")
    if run.first is not None and run.kept is not None:
        console.print(f"before: {run.first.summary}")
        console.print(f"kept, of step {run.kept.step:,}: {run.kept.summary}")
    console.print(
        f"{escape(str(out))} is an encoder as any other: "
        f"scanonce index VIDEOS --encoder {escape(shlex.quote(str(out)))}",
        soft_wrap=True,
    )
    console.print(
        f"[dim]Frames for further runs are in {escape(str(work))}; it may be deleted.[/]",
        soft_wrap=True,
    )


class _Screen(FinetuneCallbacks):
    """A bar for decoding, then one for the steps, and a line for each validation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = ExitStack()
        self._decoding: Progress | None = None
        self._training: Progress | None = None
        self._losses: list[float] = []
        self._seconds: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _open(self, *columns: str) -> Progress:
        """The next bar, in the place of the one before."""
        self._stack.close()
        texts = [TextColumn(column) for column in columns]
        shown = Progress(
            texts[0],
            BarColumn(),
            MofNCompleteColumn(),
            *texts[1:],
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        return self._stack.enter_context(shown)

    def decoding(self, done: int, total: int) -> None:
        if self._decoding is None:
            self._decoding = self._open("decoding videos")
            self._decoding.add_task("", total=total)
        self._decoding.update(self._decoding.task_ids[0], completed=done)

    def problems(self, problems: Sequence[CacheProblem]) -> None:
        self._stack.close()
        for problem in problems[:_FEW]:
            what = "left out" if problem.is_left_out else "not whole"
            self._console.print(
                f"[yellow]{what}:[/] {escape(str(problem.video))}: {escape(problem.reason)}",
                soft_wrap=True,
            )
        if len(problems) > _FEW:
            self._console.print(f"[yellow]and {len(problems) - _FEW} more[/]")

    def started(self, run: ClipRun) -> None:
        held = len(run.validation) if run.validation is not None else 0
        begun = f", {run.at.step:,} of them done" if run.at.step else ""
        self._console.print(
            f"{len(run.clips):,} clips to train on, {held:,} held out; {run.schedule.num_steps:,} steps of "
            f"{run.batch} clips{begun}; {run.processes.count} x {run.processes.device.type}",
            soft_wrap=True,
        )
        self._seconds = [run.at.elapsed_seconds]
        self._training = self._open("training", "{task.fields[note]}")
        self._training.add_task("", total=run.schedule.num_steps, completed=run.at.step, note="")

    def stepped(self, run: ClipRun) -> None:
        assert self._training is not None
        self._losses = [*self._losses[1 - _SMOOTHED :], run.at.losses["train"]]
        self._seconds = [*self._seconds[-_SMOOTHED:], run.at.elapsed_seconds]
        steps = len(self._seconds) - 1
        rate = run.batch * steps / max(self._seconds[-1] - self._seconds[0], 1e-9)
        loss = sum(self._losses) / len(self._losses)
        note = f"loss {loss:.3f}, {rate:.1f} clips/s"
        self._training.update(self._training.task_ids[0], completed=run.at.step, note=note)

    def validated(self, run: ClipRun, found: Validated) -> None:
        self._console.print(f"step {found.step:,}: {found.summary}")
