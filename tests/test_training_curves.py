"""Curves of a run: the CSV, TensorBoard's events, resumption, and the plot."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanonce.storage.errors import ConfigError
from scanonce.training.curves import CSV_NAME, TENSORBOARD_NAME, Curves


def lines(folder: Path) -> list[str]:
    return (folder / CSV_NAME).read_text(encoding="utf-8").splitlines()


def test_rows_and_new_columns_are_written_to_the_csv_immediately(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        curves.log(1, {"loss/train": 4.5, "rate/head": 1e-4})
        curves.log(2, {"loss/train": 0.1 + 0.2, "rate/head": 2e-4})
        assert lines(tmp_path)[-1] == "2,0.30000000000000004,0.0002"
        curves.log(2, {"validation/R@1": 0.25})
        curves.log(3, {"rate/head": 3e-4})
        assert lines(tmp_path) == [
            "step,loss/train,rate/head,validation/R@1",
            "1,4.5,0.0001,",
            "2,0.30000000000000004,0.0002,",
            "2,,,0.25",
            "3,,0.0003,",
        ]
        assert curves.points("rate/head") == ([1, 2, 3], [1e-4, 2e-4, 3e-4])


def test_tensorboard_reads_the_logged_values(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        curves.log(1, {"loss/train": 4.5})
        curves.log(7, {"loss/train": 1.5})
    (events,) = (tmp_path / TENSORBOARD_NAME).iterdir()
    loader: Any = importlib.import_module("tensorboard.backend.event_processing.event_file_loader")
    found = {
        (event.step, value.tag, value.tensor.float_val[0])
        for event in loader.EventFileLoader(str(events)).Load()
        for value in event.summary.value
    }
    assert found == {(1, "loss/train", 4.5), (7, "loss/train", 1.5)}


def test_a_resumed_run_drops_later_rows_and_a_new_one_all_rows(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        for step in (1, 2, 3):
            curves.log(step, {"loss/train": 5.0 - step})
        curves.log(3, {"validation/R@1": 0.5})
    with (tmp_path / CSV_NAME).open("a") as file:
        file.write("4,1.")  # a crash in the middle of a line
    with Curves(tmp_path, resumed_step=2) as curves:
        assert lines(tmp_path) == ["step,loss/train", "1,4.0", "2,3.0"]
        curves.log(3, {"loss/train": 2.5})
    assert lines(tmp_path)[-1] == "3,2.5"
    with Curves(tmp_path):
        assert lines(tmp_path) == ["step"]


def test_another_file_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / CSV_NAME).write_text("name,age\nx,3\n")
    with pytest.raises(ConfigError, match="Move it away"):
        Curves(tmp_path, resumed_step=1)
    assert lines(tmp_path) == ["name,age", "x,3"]


def test_the_plot_has_a_panel_for_each_group(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        for step in range(1, 6):
            curves.log(step, {"loss/train": 5.0 / step})
        one = np.asarray(Image.open(curves.draw(tmp_path / "one.png")).convert("L"))
        curves.log(5, {"validation/R@1": 0.4, "rate/head": 0.0})
        three = np.asarray(Image.open(curves.draw(tmp_path / "three.png")).convert("L"))
    assert three.shape[0] == one.shape[0]
    assert three.shape[1] == 3 * one.shape[1]
    for panel in np.array_split(three, 3, axis=1):
        assert (panel < 128).mean() > 0.005, "an empty panel"


def test_without_the_packages_of_training_the_error_has_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", gone)
    with pytest.raises(ConfigError, match=r'pip install -e "\.\[train\]"'):
        Curves(tmp_path)
