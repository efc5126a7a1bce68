"""Runs the server of `ui.mcp_server` over standard input and output, or over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from scanonce.ui.api.tokens import Tokens
from scanonce.ui.console import note
from scanonce.ui.mcp_server import build_mcp, mcp_app
from scanonce.ui.server.cache import proxy_cache
from scanonce.ui.server.server import (
    address,
    host_names,
    is_loopback,
    listen,
    new_service,
    uvicorn_settings,
)

if TYPE_CHECKING:
    from scanonce.library import Library


def run_stdio(library: "Library", config: Path | None, clips: Path | None) -> None:
    """Answer on standard output until standard input ends."""
    cache = proxy_cache(library.root)
    try:
        build_mcp(new_service(library, config), cache, clips).run("stdio")
    finally:
        cache.close()


def run_http(
    library: "Library",
    config: Path | None,
    clips: Path | None,
    *,
    host: str,
    port: int,
    report: Callable[[str], object] = note,
) -> None:
    """Answer at a port until Ctrl-C.

    Raises:
        ConfigError: the address cannot be used, or no port is free.
    """
    cache = proxy_cache(library.root)
    listening = listen(host, port)
    chosen = int(listening.getsockname()[1])
    try:
        server = build_mcp(new_service(library, config), cache, clips)
        app = mcp_app(server, Tokens(library.root), host=host, names=host_names(host))
        report(f"Assistants: {address(host, chosen)}mcp (Ctrl-C ends it)")
        if not is_loopback(host):
            report("The connection is not encrypted: use it in networks you trust.")
        uvicorn.Server(uvicorn.Config(app, **uvicorn_settings())).run(sockets=[listening])
    finally:
        listening.close()
        cache.close()
