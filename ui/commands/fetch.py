"""`scanonce fetch`."""

from pathlib import Path
from typing import Annotated

import typer

from scanonce.ui.commands.options import ConfigOption, absolute
from scanonce.ui.console import new_console, verbatim


def fetch(
    model: Annotated[str, typer.Argument(help="Hub id, such as openai/clip-vit-base-patch32.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it may exist.")],
    config: ConfigOption = None,
) -> None:
    """Download an encoder from the hub into a folder, for a machine without a network."""
    from scanonce.models.encoders.check import check_named
    from scanonce.models.encoders.hub import fetch
    from scanonce.ui.config import read_config

    settings = read_config(config)
    folder = absolute(to)
    console = new_console()
    fetch(model, folder)
    with console.status("checking it"):
        encoder = check_named(str(folder), settings.models)
    console.print(
        f"{verbatim(folder)} holds {verbatim(model)}, which works: {encoder.dim} numbers a vector. Bring the folder to "
        f"the other machine: scanonce index VIDEOS --encoder FOLDER",
        soft_wrap=True,
        highlight=False,
    )
