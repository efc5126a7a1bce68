"""The output of `scanonce train clip`. It imports torch, so it is apart from the command, which must start quickly."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from rich.console import Console

from scanonce.training.bars import Report
from scanonce.training.clip.captions import CaptionedVideos
from scanonce.training.clip.finetune import FinetuneCallbacks
from scanonce.training.clip.frame_cache import CacheProblem
from scanonce.training.clip.run import ClipRun, Validated
from scanonce.ui.commands.progress import progress_bar
from scanonce.ui.console import verbatim

_MOST_SHOWN = 10  # missing videos, and videos with problems
_RATE_STEPS = 20  # steps over which the speed and the loss are averaged


class ClipScreen(FinetuneCallbacks):
    """Shows a training: a bar for decoding, then one for the steps, and a line for each validation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = ExitStack()
        self._report: Report | None = None
        self._losses: list[float] = []
        self._seconds: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.close()

    def show_missing(self, read: Sequence[CaptionedVideos]) -> None:
        """Print the videos that have captions and no file."""
        missing = [each for captioned in read for each in captioned.missing]
        if not missing:
            return
        left_out = sum(each.num_captions for each in missing)
        names = ", ".join(each.name for each in missing[:_MOST_SHOWN])
        more = f" and {len(missing) - _MOST_SHOWN} more" if len(missing) > _MOST_SHOWN else ""
        self._console.print(
            f"[yellow]{len(missing)} videos are missing, with {left_out} captions:[/] {verbatim(names)}{more}",
            soft_wrap=True,
        )

    def _replace_bar(self, title: str) -> Report:
        self._bars.close()
        return self._bars.enter_context(progress_bar(self._console, title))

    def decoding(self, done: int, total: int) -> None:
        """Show the share of the videos that have their frames."""
        if self._report is None:
            self._report = self._replace_bar("decoding videos")
        self._report(done, total)

    def problems(self, problems: Sequence[CacheProblem]) -> None:
        """Print which videos are left out or not whole."""
        self._bars.close()
        for problem in problems[:_MOST_SHOWN]:
            what = "left out" if problem.is_left_out else "not whole"
            self._console.print(
                f"[yellow]{what}:[/] {verbatim(problem.video)}: {verbatim(problem.reason)}",
                soft_wrap=True,
            )
        if len(problems) > _MOST_SHOWN:
            self._console.print(f"[yellow]and {len(problems) - _MOST_SHOWN} more[/]")

    def started(self, run: ClipRun) -> None:
        """Print the size of the training."""
        held = len(run.validation) if run.validation is not None else 0
        done = f", {run.at.step:,} of them done" if run.at.step else ""
        self._console.print(
            f"{len(run.clips):,} clips to train on, {held:,} held out; {run.schedule.num_steps:,} steps of "
            f"{run.batch} clips{done}; {run.processes.count} x {run.processes.device.type}",
            soft_wrap=True,
        )
        self._seconds = [run.at.elapsed_seconds]
        self._report = self._replace_bar("training")
        self._report(run.at.step, run.schedule.num_steps)

    def stepped(self, run: ClipRun) -> None:
        """Show the loss and the speed."""
        assert self._report is not None
        self._losses = [*self._losses[1 - _RATE_STEPS :], run.at.losses["train"]]
        self._seconds = [*self._seconds[-_RATE_STEPS:], run.at.elapsed_seconds]
        steps = len(self._seconds) - 1
        rate = run.batch * steps / max(self._seconds[-1] - self._seconds[0], 1e-9)
        loss = sum(self._losses) / len(self._losses)
        self._report(run.at.step, run.schedule.num_steps, f"loss {loss:.3f}, {rate:.1f} clips/s")

    def validated(self, run: ClipRun, found: Validated) -> None:
        """Print the figures of a validation."""
        self._console.print(f"step {found.step:,}: {found.summary}")

    def show_end(self, run: ClipRun, out: Path, work: Path) -> None:
        """Print the figures of a training and the next step."""
        self._console.print(f"{run.at.step:,} steps in {run.at.elapsed_seconds / 60:.1f} min")
        if run.first is not None and run.kept is not None:
            self._console.print(f"before: {run.first.summary}")
            self._console.print(f"kept, of step {run.kept.step:,}: {run.kept.summary}")
        self._console.print(
            f"{verbatim(out)} is an encoder as any other: "
            f"scanonce index VIDEOS --encoder {verbatim(shlex.quote(str(out)))}",
            soft_wrap=True,
        )
        self._console.print(
            f"[dim]Frames for further trainings are in {verbatim(work)}; it may be deleted.[/]",
            soft_wrap=True,
        )
