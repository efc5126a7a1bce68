"""`scanonce forget`."""

from pathlib import Path
from typing import Annotated

import typer

from scanonce.ui.commands.options import ConfigOption, IndexOption
from scanonce.ui.console import new_console
from scanonce.ui.views import count_text


def forget(
    path: Annotated[Path, typer.Argument(help="A folder or file of the index.")],
    index_dir: IndexOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a folder or file from the index. The video files themselves are never touched."""
    from scanonce.ui.config import read_config

    count = read_config(config).library(index_dir).forget([path])
    new_console().print(f"Forgot {count_text(count, 'file')}.")
