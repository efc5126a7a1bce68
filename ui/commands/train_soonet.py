"""`scanonce train soonet` for a person at a terminal: progress, figures beside those of other localisers, what next."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanonce.models.settings import ModelSettings
from scanonce.training.curves import PLOT_NAME
from scanonce.training.localiser.compare import TIOUS, Compared
from scanonce.training.localiser.from_index import Choices, Trained, train_on_index
from scanonce.training.processes import meet_processes


def run_train_soonet(
    annotations: Path,
    out: Path,
    index_dir: Path,
    choices: Choices,
    *,
    work: Path | None = None,
    models: ModelSettings | None = None,
    console: Console | None = None,
) -> Trained:
    """Trains a localiser on an index; in several processes, only the first one tells.

    Args:
        annotations: sentences and their moments.
        out: folder of the localiser.
        index_dir: the index whose stored frames are trained on.
        choices: see `training.localiser.from_index.Choices`.
        work: folder of state and curves; None: beside ``out``, with ``.work`` behind its name.
        models: device, and number format of the encoder of sentences.
        console: where it is told; None: standard output.

    Raises:
        ScanonceError: see `training.localiser.from_index.train_on_index`.
    """
    processes = meet_processes((models or ModelSettings()).device)
    out = out.expanduser().absolute()
    work = work.expanduser().absolute() if work else out.with_name(f"{out.name}.work")
    console = (console or Console()) if processes.index == 0 else Console(quiet=True)
    try:
        trained = train_on_index(
            index_dir,
            annotations,
            out,
            choices,
            work=work,
            models=models,
            processes=processes,
            console=console,
        )
    finally:
        processes.close()
    _tell_end(trained, out, work, index_dir, console)
    return trained


def _tell_end(trained: Trained, out: Path, work: Path, index_dir: Path, console: Console) -> None:
    if trained.compared:
        console.print(_table(trained.compared))
    console.print(f"{trained.steps:,} steps in {trained.seconds / 60:.1f} min")
    console.print(
        f"{escape(str(out))} is a localiser of this index: scanonce localise "
        f"--localiser {escape(shlex.quote(str(out)))} --index {escape(shlex.quote(str(index_dir)))}",
        soft_wrap=True,
    )
    console.print(
        f"[dim]Curves: {escape(str(work / PLOT_NAME))}; the folder may be deleted.[/]",
        soft_wrap=True,
    )


def _table(compared: dict[str, Compared]) -> Table:
    """R@1 with 95 % intervals, a row for each localiser."""
    num_queries = next(iter(compared.values())).num_queries
    table = Table(title=f"R@1 of {num_queries:,} held-out sentences (95 %)", box=None)
    table.add_column("moments by")
    for where in ("in the video", "in the library"):
        for tiou in TIOUS:
            table.add_column(f"{where}, tIoU {tiou:g}", justify="right")
    for name, row in compared.items():
        figures = [*row.in_video.values(), *row.library.values()]
        table.add_row(name, *(f"{f.value:.3f} ({f.low:.2f}-{f.high:.2f})" for f in figures))
    return table
