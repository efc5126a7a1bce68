"""Tasks of a child of `tests.lab`: a generation is published, or a file written, until the power is cut."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.files import write_whole
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.generation import newest_generation, newest_number
from scanonce.storage.vectors.publish import publish
from tests.faults import Faults, Names, cut_power
from tests.story import Case, Report

_DIM = 8
_SETTINGS = StorageSettings.model_construct(ivf_threshold=20, rescore_depth=500, fold_rows=8)
_FIRST, _SECOND = range(1, 4), (2, 3, 4, 5)
"""Videos before and after the generation that is watched: more are new, one is gone."""
_OLD, _NEW = b"old" * 1000, b"new" * 2000


def publish_until(report: Report, *, case: str, at: int) -> None:
    """Publish two generations and a third, which ends at a point; 0: report the points of the third."""
    folder = Case(Path(case))
    vectors = folder.index / "vectors"
    vectors.mkdir(parents=True)
    for videos in (_FIRST[:2], _FIRST):
        publish(vectors, videos, _clips, dim=_DIM, settings=_SETTINGS)
    faults = Faults(folder, kind="power" if at else "none", at=at)
    with faults.installed():
        publish(vectors, _SECOND, _clips, dim=_DIM, settings=_SETTINGS)
        faults.point("end", str(vectors))
    report("points", faults.points)


def check_published(report: Report, *, case: str, seed: int) -> None:
    """Cut the power in each order of names; report the newest generation by its name, and the newest whole one."""
    for folder in _after_power_cuts(case, seed):
        vectors = folder.index / "vectors"
        whole = newest_generation(vectors, dim=_DIM)
        report("newest and whole", [newest_number(vectors), whole.number if whole else 0])


def write_until(report: Report, *, case: str, at: int) -> None:
    """Replace a file by another content, in a folder and in a new one; end at a point, or report all."""
    folder = Case(Path(case))
    folder.index.mkdir(parents=True)
    write_whole(folder.index / "file", lambda file: file.write(_OLD))
    faults = Faults(folder, kind="power" if at else "none", at=at)
    with faults.installed():
        write_whole(folder.index / "file", lambda file: file.write(_NEW))
        faults.point("replaced", str(folder.index))
        write_whole(folder.index / "new" / "file", lambda file: file.write(_NEW))
        faults.point("end", str(folder.index))
    report("points", faults.points)


def check_written(report: Report, *, case: str, seed: int) -> None:
    """Cut the power in each order of names; report which contents the files have: old, new, none or torn."""
    for folder in _after_power_cuts(case, seed):
        paths = [folder.index / "file", folder.index / "new" / "file"]
        contents = [path.read_bytes() if path.exists() else None for path in paths]
        names = {_OLD: "old", _NEW: "new", None: "none"}
        report("contents", [names.get(content, "torn") for content in contents])


def _after_power_cuts(case: str, seed: int) -> Iterator[Case]:
    """Copies of a killed writer's case, of which each has lost something else."""
    orders: tuple[Names, ...] = ("oldest", "newest", "any")
    for names in orders:
        folder = Case(Path(f"{case}-{names}"))
        shutil.copytree(case, folder.folder)
        cut_power(folder, names, seed)
        yield folder
        shutil.rmtree(folder.folder)


def _clips(video: int) -> NDArray[np.float32]:
    clips = np.random.default_rng(video).normal(size=(6, _DIM)).astype(np.float32)
    return np.asarray(clips / np.linalg.norm(clips, axis=1, keepdims=True))
