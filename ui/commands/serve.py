"""`scanonce serve`."""

from typing import Annotated

import typer

from scanonce.storage.errors import ConfigError
from scanonce.ui.commands.options import ConfigOption, IndexOption
from scanonce.ui.commands.ui import HostOption, PageTokenOption, PortOption
from scanonce.ui.server import DEFAULT_PORT


def serve(
    index_dir: IndexOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    token: PageTokenOption = None,
    api_only: Annotated[
        bool, typer.Option("--api-only", help="Serve the HTTP API and no pages.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Serve the library to programs (HTTP API) and people (pages), and answer the command line without waiting."""
    from scanonce.ui.config import read_config

    try:
        from scanonce.ui.server.server import serve
    except ModuleNotFoundError as error:  # the extra is not installed
        raise ConfigError(
            f'the server needs the package {error.name}: pip install "scanonce[api]"'
        ) from error

    index = read_config(config).index_path(index_dir)
    serve(index, host=host, port=port, token=token, api_only=api_only, config=config)
