"""Curves of a training run: a plain CSV, TensorBoard, and a picture of them at the end.

    with Curves(Path("run"), resumed_step=0) as curves:
        curves.log(1, {"loss/train": 4.85, "rate/encoder": 1e-7, "rate/head": 1e-4})
        curves.log(1, {"validation/R@1": 0.12})
        curves.draw(Path("run/curves.png"))

A name is ``group/what``: TensorBoard shows the curves of a group together, and so does the picture. A run that was
interrupted goes on from its last checkpoint; what was logged after that is dropped, since it comes again.
"""

import csv
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scanonce.storage.errors import ConfigError, IndexDirectoryError
from scanonce.storage.files import write_whole

CSV_NAME = "curves.csv"
TENSORBOARD_NAME = "tensorboard"
"""In the folder of the run."""

AXES = {"loss": "loss", "rate": "learning rate", "validation": "share of queries, 0 to 1"}
"""What stands beside the axis of a group, in the order of the panels; another group comes last and gives its name."""

_INSTALL = 'install what training needs: pip install -e ".[train]"'


class Curves:
    """Writes what is logged; also a context manager that closes its files."""

    def __init__(self, folder: Path, *, resumed_step: int = 0) -> None:
        """Opens the curves of a run.

        Args:
            folder: of the run; made where missing. Holds ``curves.csv`` and ``tensorboard/``.
            resumed_step: rows after this step are dropped; 0 for a new run, which drops all.

        Raises:
            ConfigError: the packages of training are not installed, or there is a ``curves.csv`` that is none.
            IndexDirectoryError: the folder cannot be written.
        """
        writer = _imported("torch.utils.tensorboard").SummaryWriter
        self._path = folder / CSV_NAME
        self._names: list[str] = []
        self._rows: list[dict[str, float]] = []
        self._steps: list[int] = []
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
        """Adds a row to the CSV and a point to each curve.

        Args:
            step: from 0, not less than that of the row before.
            values: by name, such as "loss/train"; what is left out has no point at this step.

        Raises:
            IndexDirectoryError: the row cannot be written.
        """
        row = {name: float(value) for name, value in values.items()}
        self._steps.append(step)
        self._rows.append(row)
        new = [name for name in row if name not in self._names]
        self._names += new
        if new:  # a further column: once or twice in a run
            self._write_whole()
        else:
            self._append(self._fields(len(self._rows) - 1))
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def points(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one curve."""
        rows = [
            (step, row[name])
            for step, row in zip(self._steps, self._rows, strict=True)
            if name in row
        ]
        return [step for step, _ in rows], [value for _, value in rows]

    def draw(self, path: Path) -> Path:
        """Writes a PNG with a panel for each group that has points, side by side; returns ``path``."""
        groups: dict[str, list[str]] = {group: [] for group in AXES}
        for name in self._names:
            groups.setdefault(name.partition("/")[0], []).append(name)
        groups = {group: names for group, names in groups.items() if names}
        figure = _imported("matplotlib.figure").Figure(
            figsize=(3.9 * max(1, len(groups)), 2.7), layout="constrained"
        )
        for place, (group, names) in enumerate(groups.items(), start=1):
            self._draw_panel(figure.add_subplot(1, len(groups), place), group, names)
        canvas = _imported("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
        write_whole(path, lambda file: canvas.print_png(file, pil_kwargs={"optimize": True}))
        return path

    def close(self) -> None:
        """Writes out what TensorBoard holds back; may be called twice."""
        self._writer.close()

    def _draw_panel(self, axes: Any, group: str, names: list[str]) -> None:
        for name in names:
            steps, values = self.points(name)
            # few points are seen as points; a line of one point would be nothing
            axes.plot(
                steps,
                values,
                label=name.partition("/")[2] or name,
                marker="o" if len(steps) <= 30 else None,
                markersize=3.5,
                linewidth=1.2,
            )
        axes.set_xlabel("step")
        axes.set_ylabel(AXES.get(group, group))
        axes.grid(alpha=0.3)
        if group == "validation":
            axes.set_ylim(0, 1.03)  # a little above, so that a curve at 1 is seen
        if group == "rate" and any(value > 0 for name in names for value in self.points(name)[1]):
            axes.set_yscale("log")  # the encoder's is a thousandth of the head's
        axes.legend(fontsize="small")

    def _fields(self, number: int) -> list[str]:
        row = self._rows[number]
        values = [repr(row[name]) if name in row else "" for name in self._names]
        return [str(self._steps[number]), *values]

    def _append(self, fields: list[str]) -> None:
        try:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(fields)
        except OSError as error:
            raise IndexDirectoryError(
                f"{self._path} cannot be written ({error.strerror or error}). Make room, then go on (--resume)."
            ) from error

    def _write_whole(self) -> None:
        lines = [["step", *self._names], *(self._fields(n) for n in range(len(self._rows)))]
        text = "".join(f"{','.join(_quoted(field) for field in line)}\n" for line in lines)
        write_whole(self._path, lambda file: file.write(text.encode()))

    def _read(self, last_step: int) -> None:
        """Rows of an earlier run up to a step. A last line that was cut off by a crash is dropped too."""
        with self._path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        if not lines or lines[0][:1] != ["step"]:
            raise ConfigError(
                f"{self._path} is not a file of curves: its first line must begin with step. Move it away."
            )
        names = lines[0][1:]
        kept = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                step, *values = line
                row = {name: float(v) for name, v in zip(names, values, strict=True) if v}
                if int(step) <= last_step:
                    kept.append((int(step), row))
            except ValueError as error:
                if number == len(lines):
                    break
                raise ConfigError(f"{self._path}, line {number}: {error}. Move it away.") from error
        self._steps = [step for step, _ in kept]
        self._rows = [row for _, row in kept]
        self._names = [name for name in names if any(name in row for row in self._rows)]


def _quoted(field: str) -> str:
    return f'"{field}"' if "," in field else field


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not there: {_INSTALL}") from error
