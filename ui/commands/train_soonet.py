"""`scanonce train soonet`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from scanonce.ui.commands.options import (
    BenchmarkOption,
    ConfigOption,
    IndexOption,
    MinutesCapOption,
    ResumeOption,
    SeedOption,
    ValidationOption,
    ValidationShareOption,
    WorkOption,
    output_folders,
)
from scanonce.ui.console import new_console, verbatim

if TYPE_CHECKING:
    from scanonce.training.localiser.compare import Compared
    from scanonce.training.localiser.from_index import Trained


def train_soonet(
    annotations: Annotated[
        Path, typer.Argument(help="Queries and their moments: .jsonl, .csv, or of a benchmark.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the localiser.")],
    index_dir: IndexOption = None,
    benchmark: BenchmarkOption = "scanonce",
    validation: ValidationOption = None,
    validation_share: ValidationShareOption = 0.1,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes over the queries.", show_default="20, at least 1,500 steps"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps, instead of --epochs.", show_default="by --epochs"),
    ] = None,
    libraries_per_step: Annotated[
        int | None,
        typer.Option(min=1, help="Small libraries in each step.", show_default="one a process"),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Highest learning rate.", show_default="by the width"),
    ] = None,
    begin_with: Annotated[
        str | None,
        typer.Option(
            "--from",
            help='Localiser to start from: "bundled", a folder, or a published .pth file.',
            show_default="new weights",
        ),
    ] = None,
    seed: SeedOption = 0,
    work: WorkOption = None,
    resume: ResumeOption = False,
    minutes_cap: MinutesCapOption = None,
    config: ConfigOption = None,
) -> None:
    """Train a localiser on an index and annotated moments; no video is decoded."""
    from scanonce.training.localiser.from_index import Choices, train_on_index
    from scanonce.training.processes import meet_processes
    from scanonce.ui.config import read_config

    settings = read_config(config)
    index = settings.index_path(index_dir)
    out, work = output_folders(out, work)
    choices = Choices(
        benchmark=benchmark,
        validation=validation,
        validation_share=validation_share,
        epochs=epochs,
        steps=steps,
        libraries_per_step=libraries_per_step,
        learning_rate=lr,
        seed=seed,
        begin_with=begin_with,
        resume=resume,
        minutes_cap=float("inf") if minutes_cap is None else minutes_cap,
    )
    processes = meet_processes(settings.models.device)
    console = new_console(quiet=processes.index > 0)  # one of several processes prints
    try:
        trained = train_on_index(
            index,
            annotations,
            out,
            choices,
            work=work,
            models=settings.models,
            processes=processes,
            console=console,
        )
    finally:
        processes.close()
    _show_end(trained, out, work, index, console)


def _show_end(trained: "Trained", out: Path, work: Path, index_dir: Path, console: Console) -> None:
    from scanonce.training.curves import PLOT_NAME

    if trained.compared:
        console.print(_table(trained.compared))
    console.print(f"{trained.steps:,} steps in {trained.seconds / 60:.1f} min")
    console.print(
        f"{verbatim(out)} is a localiser of this index: scanonce localise "
        f"--localiser {verbatim(shlex.quote(str(out)))} --index {verbatim(shlex.quote(str(index_dir)))}",
        soft_wrap=True,
    )
    console.print(
        f"[dim]Curves: {verbatim(work / PLOT_NAME)}; the folder may be deleted.[/]",
        soft_wrap=True,
    )


def _table(compared: "dict[str, Compared]") -> Table:
    """Return R@1 with 95 % intervals, a row for each localiser."""
    from scanonce.training.localiser.compare import TIOUS

    num_queries = next(iter(compared.values())).num_queries
    table = Table(title=f"R@1 of {num_queries:,} held-out queries (95 %)", box=None)
    table.add_column("localiser")
    for where in ("in the video", "in the library"):
        for tiou in TIOUS:
            table.add_column(f"{where}, tIoU {tiou:g}", justify="right")
    for name, row in compared.items():
        figures = [*row.in_video.values(), *row.library.values()]
        table.add_row(name, *(f"{f.value:.3f} ({f.low:.2f}-{f.high:.2f})" for f in figures))
    return table
