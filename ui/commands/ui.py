"""`scanonce ui`."""

from typing import Annotated

import typer

from scanonce.storage.errors import ConfigError
from scanonce.ui.commands.options import ConfigOption, IndexOption
from scanonce.ui.server import DEFAULT_PORT

HostOption = Annotated[
    str,
    typer.Option(
        help="Address to listen on. Any other than this machine's own lets the network see the videos."
    ),
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port, or the next free one.")]
PageTokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", help='Ask people for this token, 12 characters or more; "auto" makes one.'
    ),
]


def show_ui(
    index_dir: IndexOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    token: PageTokenOption = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    config: ConfigOption = None,
) -> None:
    """Show the library in a browser: search it, watch videos, cut clips."""
    from scanonce.ui.config import read_config

    try:
        from scanonce.ui.server.server import serve
    except ModuleNotFoundError as error:  # the extra is not installed
        raise ConfigError(
            f'the pages need the package {error.name}: pip install "scanonce[ui]"'
        ) from error

    index = read_config(config).index_path(index_dir)
    serve(index, host=host, port=port, token=token, open_browser=browser, config=config)
