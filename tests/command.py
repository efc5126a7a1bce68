"""The command line in the process of the tests: starting one with torch takes seconds."""

import re
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from scanonce.ui.cli import app, main

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ran:
    """The result of a command, as `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


def scanonce(
    *arguments: object,
    stdin: str | bytes = "",
    terminal: bool = False,
    columns: int = 200,
    is_raw: bool = False,
    encoding: str = "utf-8",
) -> Ran:
    """Run the command in the repository's folder.

    Args:
        arguments: of the command.
        stdin: its standard input.
        terminal: write as to a terminal.
        columns: length of its lines.
        is_raw: leave the codes for colours in the result.
        encoding: of the terminal.
    """
    out, err = (TextIOWrapper(BytesIO(), encoding, write_through=True) for _ in range(2))
    code: str | int | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["scanonce", *map(str, arguments)])
        content = stdin.encode() if isinstance(stdin, str) else stdin
        patch.setattr("sys.stdin", TextIOWrapper(BytesIO(content), "utf-8"))
        patch.setattr("threading.excepthook", threading.excepthook)  # the command has its own
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TTY_COMPATIBLE", str(int(terminal)))
        patch.chdir(ROOT)
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    shown, errors = (_written(each) for each in (out, err))
    if not is_raw:
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    return Ran(code or 0, shown, errors)


def _written(file: TextIOWrapper) -> str:
    assert isinstance(file.buffer, BytesIO)
    return file.buffer.getvalue().decode(file.encoding)


def command_names() -> set[str]:
    """Return the names of all commands, such as "search" and "train clip"."""

    def names(command: Any, path: tuple[str, ...]) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        if path and (not inner or command.invoke_without_command):
            yield " ".join(path)
        for name, each in inner.items():
            yield from names(each, (*path, name))

    return set(names(get_command(app), ()))
