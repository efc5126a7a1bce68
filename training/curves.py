"""Curves of a training run: a CSV file, TensorBoard events, and a plot at the end.

    with Curves(Path("run"), resumed_step=0) as curves:
        curves.log(1, {"loss/train": 4.85, "rate/encoder": 1e-7, "rate/head": 1e-4})
        curves.log(1, {"validation/R@1": 0.12})
        curves.draw(Path("run/curves.png"))

A name has the form ``group/curve``; TensorBoard and the plot show the curves of a group together. A resumed run drops
the rows after its last saved state, since they will be logged again.
"""

import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scanonce.storage.errors import ConfigError, IndexDirectoryError
from scanonce.storage.files import write_whole

CSV_NAME, TENSORBOARD_NAME = "curves.csv", "tensorboard"
"""File and folder in the folder of the run."""
PLOT_NAME = "curves.png"
"""Usual name of the plot."""

AXES = {"loss": "loss", "rate": "learning rate", "validation": "share of queries, 0 to 1"}
"""Axis label of each group, in the order of the panels; other groups follow, labelled by their names."""

_INSTALL = 'install the packages of training: pip install -e ".[train]"'


class Curves:
    """Writes logged values; a context manager that closes its files."""

    def __init__(self, folder: Path, *, resumed_step: int = 0) -> None:
        """Open the curves of a run.

        Args:
            folder: folder of the run, with ``curves.csv`` and ``tensorboard/``; made if it is missing.
            resumed_step: rows after this step are dropped; 0: a new run, all rows are dropped.

        Raises:
            ConfigError: the packages of training are not installed, or ``curves.csv`` is not a file of curves.
            IndexDirectoryError: the folder cannot be written.
        """
        writer = _imported("torch.utils.tensorboard").SummaryWriter
        self._path = folder / CSV_NAME
        self._names: list[str] = []
        self._rows: list[tuple[int, dict[str, float]]] = []
        if resumed_step > 0 and self._path.exists():
            self._read(resumed_step)
        self._write_whole()
        self._writer: Any = writer(str(folder / TENSORBOARD_NAME), purge_step=resumed_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row to the CSV and a point to each curve.

        Args:
            step: from 0, not less than that of the previous row.
            values: values by name, such as "loss/train"; other curves have no point at this step.

        Raises:
            IndexDirectoryError: the row cannot be written.
        """
        row = {name: float(value) for name, value in values.items()}
        self._rows.append((step, row))
        new = [name for name in row if name not in self._names]
        self._names += new
        if new:  # another column, which happens once or twice in a run
            self._write_whole()
        else:
            self._append()
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def points(self, name: str) -> tuple[list[int], list[float]]:
        """Return steps and values of one curve."""
        rows = [(step, row[name]) for step, row in self._rows if name in row]
        return [step for step, _ in rows], [value for _, value in rows]

    def draw(self, path: Path) -> Path:
        """Write a PNG with a panel for each group that has points, side by side; returns ``path``."""
        groups: dict[str, list[str]] = {group: [] for group in AXES}
        for name in self._names:
            groups.setdefault(name.partition("/")[0], []).append(name)
        groups = {group: names for group, names in groups.items() if names}
        figure = _imported("matplotlib.figure").Figure(
            figsize=(3.9 * max(1, len(groups)), 2.7), layout="constrained"
        )
        for position, (group, names) in enumerate(groups.items(), start=1):
            self._draw_panel(figure.add_subplot(1, len(groups), position), group, names)
        canvas = _imported("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
        write_whole(path, lambda file: canvas.print_png(file, pil_kwargs={"optimize": True}))
        return path

    def close(self) -> None:
        """Flush the events of TensorBoard; may be called twice."""
        self._writer.close()

    def _draw_panel(self, axes: Any, group: str, names: list[str]) -> None:
        for name in names:
            steps, values = self.points(name)
            # few points get markers: a line through one point would be invisible
            marker = "o" if len(steps) <= 30 else None
            label = name.partition("/")[2] or name
            axes.plot(steps, values, label=label, marker=marker, markersize=3.5, linewidth=1.2)
        axes.set_xlabel("step")
        axes.set_ylabel(AXES.get(group, group))
        axes.grid(alpha=0.3)
        if group == "validation":
            axes.set_ylim(0, 1.03)  # a little more, so that a curve at 1 is visible
        if group == "rate" and any(value > 0 for name in names for value in self.points(name)[1]):
            axes.set_yscale("log")  # the encoder's rate is a thousandth of the head's
        axes.legend(fontsize="small")

    def _csv_of(self, rows: Sequence[tuple[int, dict[str, float]]], *, header: bool) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *self._names], lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in rows)
        return text.getvalue().encode()

    def _append(self) -> None:
        line = self._csv_of(self._rows[-1:], header=False)
        try:
            with self._path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise IndexDirectoryError(
                f"{self._path} cannot be written ({error.strerror or error}). Make room, then continue with --resume."
            ) from error

    def _write_whole(self) -> None:
        content = self._csv_of(self._rows, header=True)
        write_whole(self._path, lambda file: file.write(content))

    def _read(self, last_step: int) -> None:
        """Read the rows of an earlier run up to a step. A last line that a crash cut off is dropped."""
        with self._path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        if not lines or lines[0][:1] != ["step"]:
            raise ConfigError(
                f"{self._path} is not a file of curves: its first line must begin with step. Move it away."
            )
        names = lines[0][1:]
        for number, line in enumerate(lines[1:], start=2):
            try:
                step, *values = line
                row = {name: float(v) for name, v in zip(names, values, strict=True) if v}
                if int(step) <= last_step:
                    self._rows.append((int(step), row))
            except ValueError as error:
                if number == len(lines):
                    break
                raise ConfigError(f"{self._path}, line {number}: {error}. Move it away.") from error
        self._names = [name for name in names if any(name in row for _, row in self._rows)]


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed: {_INSTALL}") from error
