"""The shape of the code: sizes, circles of imports, habits of language, and the names a wheel installs.

    python -m benchmarks.house

Its limits are held by ``tests/test_house.py``. Functions are measured without their docstrings.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[1]

PRODUCT: Final = ("indexer", "media", "models", "search", "storage", "ui")
"""Folders a user's program runs; `TRAINING` is the offline side, which is installed too."""
TRAINING: Final = ("training",)
OTHERS: Final = ("benchmarks", "tests")

MAX_FILE_LINES, MAX_CLASS_LINES, MAX_FUNCTION_LINES = 600, 350, 80

LANGUAGE: Final[Mapping[str, str]] = {
    "anew": r"\banew\b",
    "None where": r"\bNone where\b",
    "where, meaning if": r"\bwhere (it|its|there|they|nothing|none|that|one|this|no)\b",
    "told, tell": r"\b(told|tells?|telling)\b",
    "so many, so much": r"\bso (many|much)\b",
    "another one": r"\banother one\b",
    "beside": r"\bbeside\b",
    "lies": r"\blies?\b",
    'docstrings that begin "What"': r'"""What ',
    "what is, what was": r"\bwhat (is|was|are|were)\b",
}
"""Habits that make the prose a language of its own, by name: regular expressions over product and training."""
MOST: Final[Mapping[str, int]] = {
    "anew": 6,
    "None where": 5,
    "where, meaning if": 25,
    "told, tell": 14,
    "so many, so much": 3,
    "another one": 1,
    "beside": 10,
    "lies": 8,
    'docstrings that begin "What"': 20,
    "what is, what was": 25,
}
"""The most of each: a tenth of the count at `BEFORE`."""
BEFORE: Final = "aac0717"
"""The commit against which `LANGUAGE` is compared: the last one before the names were put in order."""

NOT_BUILT = (
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "bench",
    "demo",
    "tests",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, class or function and its length."""

    lines: int
    name: str


def python_files(folders: Iterable[str]) -> list[Path]:
    """All Python files of these folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def file_sizes(folders: Iterable[str]) -> list[Piece]:
    """The lines of each file, longest first."""
    sizes = [
        Piece(_num_lines(path.read_text("utf-8")), str(path.relative_to(ROOT)))
        for path in python_files(folders)
    ]
    return _longest_first(sizes)


def class_sizes(folders: Iterable[str]) -> list[Piece]:
    """The lines of each class, longest first."""
    return _longest_first(
        Piece(_span(node), where) for node, where in _definitions(folders, ast.ClassDef)
    )


def function_sizes(folders: Iterable[str]) -> list[Piece]:
    """The lines of each function or method without its docstring, longest first."""
    functions = _definitions(folders, ast.FunctionDef, ast.AsyncFunctionDef)
    return _longest_first(
        Piece(_span(node) - _docstring_lines(node), where) for node, where in functions
    )


def import_circles() -> list[list[str]]:
    """Circles of imports between the modules of ``scanonce``; each is one that no other contains an edge of."""
    import grimp

    graph = grimp.build_graph("scanonce", exclude_type_checking_imports=True)
    imports = {
        module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules
    }
    circles = []
    while True:
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
            circles.append(circle)
            imports[circle[1]].discard(circle[0])
        else:
            return circles


def language_counts(texts: Iterable[str]) -> dict[str, int]:
    """How often each habit of `LANGUAGE` occurs, whatever its case."""
    whole = "\n".join(texts)
    return {
        name: len(re.findall(pattern, whole, re.IGNORECASE)) for name, pattern in LANGUAGE.items()
    }


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a copy of the repository without the network; takes some seconds."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def wheel_names(wheel: Path) -> set[str]:
    """The top-level names that a wheel installs, metadata left out."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    return {name for name in tops if not name.endswith(".dist-info")}


def main() -> None:
    """Prints all of it."""
    console = Console()
    console.print(_lengths())
    console.print(_lines())
    circles = import_circles()
    console.print(f"circles of imports: {len(circles)}")
    for circle in circles:
        console.print("  " + " -> ".join(circle))
    console.print(_language())
    with tempfile.TemporaryDirectory() as folder:
        source, goal = Path(folder, "source"), Path(folder, "wheel")
        shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_BUILT))
        names = sorted(wheel_names(build_wheel(source, goal)))
    console.print(f"top-level names in the wheel: {', '.join(names)}")


def _lengths() -> Table:
    table = Table("longest, product", "lines", "at most", "and of training", "lines", title="Sizes")
    for title, sizes, most in (
        ("file", file_sizes, MAX_FILE_LINES),
        ("class", class_sizes, MAX_CLASS_LINES),
        ("function", function_sizes, MAX_FUNCTION_LINES),
    ):
        product, training = sizes(PRODUCT)[0], sizes(TRAINING)[0]
        first = f"{title} {product.name}"
        table.add_row(first, str(product.lines), str(most), training.name, str(training.lines))
    return table


def _lines() -> Table:
    table = Table("folders", "files", "lines", title="Lines of Python")
    for name, folders in (
        ("product", PRODUCT),
        ("training", TRAINING),
        ("benchmarks", ("benchmarks",)),
        ("tests", ("tests",)),
        ("all", (*PRODUCT, *TRAINING, *OTHERS)),
    ):
        sizes = file_sizes(folders)
        table.add_row(name, str(len(sizes)), f"{sum(each.lines for each in sizes):,}")
    return table


def _language() -> Table:
    now = language_counts(path.read_text("utf-8") for path in python_files((*PRODUCT, *TRAINING)))
    before = _language_before()
    table = Table("habit", f"at {BEFORE}", "now", title="Language, product and training")
    for name, count in now.items():
        table.add_row(name, str(before[name]) if before else "?", str(count))
    return table


def _language_before() -> dict[str, int] | None:
    """The counts at `BEFORE`; None without the history of the repository."""
    names = _git("ls-tree", "-r", "--name-only", BEFORE)
    if names is None:
        return None
    folders = tuple(f"{folder}/" for folder in (*PRODUCT, *TRAINING))
    paths = [name for name in names.split() if name.startswith(folders) and name.endswith(".py")]
    return language_counts(_git("show", f"{BEFORE}:{path}") or "" for path in paths)


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout if run.returncode == 0 else None


def _definitions(folders: Iterable[str], *kinds: type[ast.AST]) -> Iterator[tuple[ast.AST, str]]:
    for path in python_files(folders):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, kinds):
                name = getattr(node, "name", "")
                yield node, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {name}"


def _span(node: ast.AST) -> int:
    return int(getattr(node, "end_lineno", 0)) - int(getattr(node, "lineno", 0)) + 1


def _docstring_lines(node: ast.AST) -> int:
    body = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return _span(body[0]) if isinstance(body[0].value.value, str) else 0
    return 0


def _num_lines(text: str) -> int:
    return text.count("\n")


def _longest_first(pieces: Iterable[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: -piece.lines)


if __name__ == "__main__":
    main()
