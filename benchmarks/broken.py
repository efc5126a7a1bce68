"""Do the tests see a fault in what protects an index? Each fault is put into a copy, and the tests are run there.

    python -m benchmarks.broken

One line for each fault: what was broken, the test that should see it, and whether it failed. The exit code is 1 if a
fault is not seen, or if the tests fail without one. Minutes; each test runs once more without a fault.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[1]
_LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", "demo", "bench", "htmlcov", "build")
_TESTS_FAILED = 1  # exit code of pytest; others mean that no test was run

console = Console(width=140)


@dataclass(frozen=True)
class Fault:
    """A change of the code that breaks a promise."""

    name: str
    path: str
    edits: tuple[tuple[str, str], ...]
    """Texts that occur once in the file, and their replacements."""
    test: str
    """The test that should fail, as pytest names it."""

    def put_into(self, root: Path) -> None:
        """Change a copy of the repository.

        Raises:
            ValueError: a text is not there, or more than once: the code has changed, and the fault has to follow.
        """
        path = root / self.path
        text = path.read_text(encoding="utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {self.path} has {text.count(old)} times {old!r}")
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


_FILE_TEST = "tests/test_storage_power.py::test_a_file_is_old_or_new_whenever_the_power_is_cut"
_GENERATION_TEST = (
    "tests/test_storage_power.py::test_the_newest_generation_is_whole_whenever_the_power_is_cut"
)
_ORDER_TEST = (
    "tests/test_indexer_pipeline.py::"
    "test_a_video_is_in_the_catalogue_only_while_its_features_are_stored"
)
_WRITE_FEATURES = "        self.target.features.write(new.content.uid, video.features)\n"

FAULTS = (
    Fault(
        "a file is not synced",
        "storage/files.py",
        (("                os.fsync(file.fileno())\n", ""),),
        _FILE_TEST,
    ),
    Fault(
        "the folder of a file is not synced",
        "storage/files.py",
        (
            (
                "            temporary.replace(path)\n            sync_directory(path.parent)\n",
                "            temporary.replace(path)\n",
            ),
        ),
        _FILE_TEST,
    ),
    Fault(
        "a file is copied into place",
        "storage/files.py",
        (
            (
                "            temporary.replace(path)\n",
                "            path.write_bytes(temporary.read_bytes())\n            temporary.unlink()\n",
            ),
        ),
        _FILE_TEST,
    ),
    Fault(
        "a video is committed before its features are written",
        "indexer/pipeline.py",
        (
            (_WRITE_FEATURES, ""),
            ("        if before:\n", f"{_WRITE_FEATURES}        if before:\n"),
        ),
        _ORDER_TEST,
    ),
    Fault(
        "files are deleted before the catalogue forgets them",
        "indexer/pipeline.py",
        (
            (
                "        self.target.delete_stored(self.catalog.forget_files(todo.to_forget))\n",
                "        gone = set(todo.to_forget)\n"
                "        doomed = [each for each in self.catalog.videos() if gone.issuperset(each.paths)]\n"
                "        self.target.delete_stored(doomed)\n"
                "        self.catalog.forget_files(todo.to_forget)\n",
            ),
        ),
        _ORDER_TEST,
    ),
    Fault(
        "a generation is sealed without syncing its files",
        "storage/vectors/publish.py",
        (("            sync(path)\n", "            pass\n"),),
        _GENERATION_TEST,
    ),
    Fault(
        "the folder of generations is not synced after a rename",
        "storage/vectors/publish.py",
        (("        sync(vectors_dir)\n", ""),),
        _GENERATION_TEST,
    ),
    Fault(
        "a generation is copied into place",
        "storage/vectors/publish.py",
        (
            (
                "        os.rename(folder, vectors_dir / numbered(number))\n",
                "        shutil.copytree(folder, vectors_dir / numbered(number))\n",
            ),
        ),
        _GENERATION_TEST,
    ),
    Fault(
        "SQLite does not sync",
        "storage/catalog/database.py",
        (("PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),),
        "tests/test_storage_database.py::test_commits_are_synced_and_readers_do_not_block",
    ),
    Fault(
        "the writer's lock is not taken",
        "storage/writer.py",
        (("            lock.acquire()\n", "            pass\n"),),
        "tests/test_storage_writer.py::test_a_second_process_gets_the_writer_its_age_and_the_next_step",
    ),
    Fault(
        "an engine keeps videos that are gone",
        "search/snapshot.py",
        (
            ("            videos.pop(video_id, None)\n", "            pass\n"),
            ("    kept = live[~np.isin(live, changes.gone)]\n", "    kept = live\n"),
        ),
        "tests/test_search_engine.py::test_an_engine_that_follows_answers_like_a_new_one",
    ),
)


def main(
    only: Annotated[str, typer.Option(help="Only faults whose name contains this.")] = "",
) -> None:
    """Put each fault into a copy, and say whether its test fails."""
    faults = [fault for fault in FAULTS if only in fault.name]
    tests = list(dict.fromkeys(fault.test for fault in faults))
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        _copy(whole)
        for test in track(tests, "without a fault", console=console):
            if (code := run_test(whole, test)) != 0:
                console.print(f"{test} fails without a fault (exit code {code}): mend it first")
                raise typer.Exit(1)
        table = Table("fault", "test", "seen")
        is_seen = []
        for number, fault in enumerate(track(faults, "with a fault", console=console)):
            broken = Path(folder) / str(number)
            _copy(broken)
            fault.put_into(broken)
            is_seen.append(run_test(broken, fault.test) == _TESTS_FAILED)
            console.print(f"{'seen' if is_seen[-1] else 'NOT SEEN'}: {fault.name}")
            table.add_row(fault.name, fault.test.replace("::", " "), "yes" if is_seen[-1] else "NO")
            shutil.rmtree(broken)
    console.print(table)
    if not all(is_seen):
        raise typer.Exit(1)


def run_test(root: Path, test: str) -> int:
    """Return the exit code of one test in a copy of the repository."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True).returncode


def _copy(target: Path) -> None:
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(ROOT, target, symlinks=True, ignore=ignored)


if __name__ == "__main__":
    typer.run(main)
