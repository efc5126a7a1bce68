"""`scanonce mcp`."""

from pathlib import Path
from typing import Annotated

import typer

from scanonce.storage.errors import ConfigError
from scanonce.ui.commands.options import ConfigOption, IndexOption, absolute

_PORT = 8502


def mcp(
    index_dir: IndexOption = None,
    http: Annotated[
        bool,
        typer.Option("--http", help="Listen at a port instead of standard input; needs a token."),
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port, or the next free one, with --http.")
    ] = _PORT,
    save_clips: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also save clips that assistants cut in this folder."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Let assistants search the library, over the Model Context Protocol."""
    try:
        from scanonce.ui.mcp_run import run_http, run_stdio
    except ModuleNotFoundError as error:  # the extra is not installed
        raise ConfigError(
            f'assistants need the package {error.name}: pip install "scanonce[mcp]"'
        ) from error
    from scanonce.ui.config import read_config

    settings = read_config(config)
    clips = None if save_clips is None else absolute(save_clips)
    with settings.library(index_dir) as library:
        if http:
            run_http(library, config, clips, host=host, port=port)
        else:
            run_stdio(library, config, clips)
