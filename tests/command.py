"""The command line in this process: to start another one with torch takes seconds."""

import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from scanonce.ui.cli import main

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ran:
    """The result of a command, as `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


def scanonce(*arguments: object, stdin: str = "", terminal: bool = False) -> Ran:
    """Run the command in the repository's folder, with lines of 200 columns.

    Args:
        arguments: of the command.
        stdin: its standard input.
        terminal: write as to a terminal; codes for colours are removed from the result.
    """
    out, err = StringIO(), StringIO()
    code: str | int | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["scanonce", *map(str, arguments)])
        patch.setattr("sys.stdin", StringIO(stdin))
        patch.setenv("COLUMNS", "200")
        patch.setenv("TTY_COMPATIBLE", str(int(terminal)))
        patch.chdir(ROOT)
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    return Ran(code or 0, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()), err.getvalue())
