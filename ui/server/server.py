"""Serves the pages (`ui/pages/app.py`, Streamlit), the media of the library and the HTTP API on this machine.

    serve(Path("~/.scanonce"), port=8501)                              # until Ctrl-C
    serve(index_dir, host="0.0.0.0", token="auto")                     # to others too, with a token

Unless another address is given, the server listens only on this machine and answers only to its own name. A page
elsewhere whose name was made to resolve to 127.0.0.1 (DNS rebinding) gets nothing. With a token, every request needs
it, websockets included. The pages load nothing from other hosts and send nothing to them, and the browser is
instructed to refuse it as well.
"""

import atexit
import contextlib
import errno
import ipaddress
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from scanonce.storage.errors import ConfigError
from scanonce.storage.layout import IndexLayout
from scanonce.ui.api.app import build_api
from scanonce.ui.api.tokens import Tokens
from scanonce.ui.config import read_config
from scanonce.ui.resident import answering
from scanonce.ui.safe_text import visible
from scanonce.ui.server import DEFAULT_PORT, INDEX_VARIABLE
from scanonce.ui.server.cache import proxy_cache
from scanonce.ui.server.guard import AccessGuard
from scanonce.ui.server.routes import Media
from scanonce.ui.server.served import served_library
from scanonce.ui.service import Service

if TYPE_CHECKING:
    from scanonce.library import Library

SCRIPT = Path(__file__).parents[1] / "pages" / "app.py"

_MIN_TOKEN = 12
_PORTS_TRIED = 50
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_STREAMLIT_OPTIONS: Mapping[str, Any] = {
    "browser.gatherUsageStats": False,
    "client.allowedOrigins": [],
    "client.showErrorDetails": "type",
    "client.showErrorLinks": False,  # to search engines
    "client.toolbarMode": "minimal",
    "global.developmentMode": False,
    "server.baseUrlPath": "",
    "server.enableAgentApi": False,
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.maxUploadSize": 20,  # megabytes of an image or a clip to search by
    "server.runOnSave": False,
    "server.showEmailPrompt": False,
}


def serve(
    index_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    open_browser: bool = False,
    api_only: bool = False,
    config: Path | None = None,
    report: Callable[[str], object] = print,
) -> None:
    """Serve an index directory until Ctrl-C: pages, media and the HTTP API. The index need not exist yet.

    Args:
        index_dir: the index to show.
        host: the address to listen at. Any but a loopback address lets others in, and a warning says so.
        port: if it is busy, the next free port is used. 0: any free port.
        token: without it nobody gets in; ``auto`` makes one. Default: no token is needed.
        open_browser: also open the page in a browser.
        api_only: serve the HTTP API and nothing else; Streamlit need not be installed.
        config: configuration file for the pages. Default: as for the command line.
        report: called with each line for the terminal.

    Raises:
        ConfigError: the address or the token cannot be used, or no port is free.
    """
    ensure_home()
    import uvicorn

    if token == "auto":
        token = secrets.token_urlsafe(24)
    check_token(token)
    listening = listen(host, port)
    try:
        chosen = int(listening.getsockname()[1])
        if port not in (0, chosen):
            report(f"Port {port} is busy: using {chosen}.")
        if config is not None:
            os.environ["SCANONCE_CONFIG"] = str(config.resolve())
        library = served_library(index_dir.resolve(), config)
        service = new_service(library, config)
        app = build_app(service, host=host, port=chosen, token=token, with_pages=not api_only)
        url = address(host, chosen)
        if not (is_loopback(host) or api_only):
            report(exposure(host, token))
        shows = "answers programs for" if api_only else "shows"
        report(f"Scanonce {shows} {visible(index_dir)} at {url} (Ctrl-C ends it)")
        if token is not None:
            report(f"It asks for the token {visible(token)}")
        report(f"Programs: {url}api/v1/docs; {_who(Tokens(library.root))}")
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                ws="none" if api_only else "websockets-sansio",
                ws_max_size=1 if api_only else _message_bytes(),
                **uvicorn_settings(),
            )
        )
        if open_browser:
            threading.Thread(target=_open_when_ready, args=(server, url), daemon=True).start()
        with answering(service, config, report):
            server.run(sockets=[listening])
    finally:
        listening.close()


def uvicorn_settings() -> dict[str, Any]:
    """Return how uvicorn runs, whatever it serves."""
    return {
        "log_level": "warning",
        "log_config": None,  # its records go where those of all others go (`ui.reports`)
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # no proxy is expected, so such headers are forged
        "timeout_graceful_shutdown": 3,
    }


def _message_bytes() -> int:
    from streamlit.runtime.runtime_util import get_max_message_size_bytes

    return int(get_max_message_size_bytes())


def _who(tokens: Tokens) -> str:
    """Return who may use the API: whoever gave away the index could have put a token of theirs there."""
    names = ", ".join(visible(each.name) for each in tokens.all())
    return f"tokens: {names}" if names else "scanonce token add NAME lets one in"


def new_service(library: "Library", config: Path | None) -> Service:
    """Return the functions of the API for a library, with clips kept in the cache of its index."""
    roots = [Path(root) for root in read_config(config).serve.roots]
    return Service(library, proxy_cache(library.root), config=config, roots=roots)


def build_app(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    script: Path = SCRIPT,
    with_pages: bool = True,
) -> AccessGuard:
    """Return the whole application behind the guard. Streamlit allows one with pages for each process.

    Args:
        service: the library; it is closed with the application.
        host, port, token: as for `serve`.
        script: the pages.
        with_pages: whether pages and media are served, or the HTTP API alone.
    """
    ensure_home()
    library = service.library
    cache = proxy_cache(library.root)
    media = Media(IndexLayout.of(library.root), cache)
    settings = read_config(service.config).serve
    api, functions = build_api(service, cache, Tokens(library.root), settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        cache.close()
        media.close()
        functions.close()
        library.close()

    if with_pages:
        pages = _pages(library.root, script, lifespan, host, port)
        app = _routed(api, pages, media.routes())
    else:
        app = _routed(api, Starlette(lifespan=lifespan), [])
    return AccessGuard(app, names=host_names(host), token=token, cookie=f"scanonce_{port}")


def _pages(root: Path, script: Path, lifespan: Any, host: str, port: int) -> ASGIApp:
    from streamlit.starlette import App
    from streamlit.web import bootstrap

    os.environ[INDEX_VARIABLE] = str(root)
    pages: ASGIApp = App(script, lifespan=lifespan)
    options = {**_STREAMLIT_OPTIONS, "server.address": host, "server.port": port}
    bootstrap.load_config_options(dict(options))
    return pages


def ensure_home() -> None:
    """Set an empty home folder for a user without one, as in some containers; Streamlit does not start without one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="scanonce-home-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def _routed(api: ASGIApp, pages: ASGIApp, media: Sequence[BaseRoute]) -> ASGIApp:
    """Return an application that answers the addresses of the API and of the media, and passes all others to the pages.

    Streamlit serves the files of its own widgets at ``/media/NAME`` and accepts no routes of others below ``/media``.
    Ours have one more part and are tried first. They also bypass its compression and sessions.
    """
    router = Router(media, default=pages)
    router.redirect_slashes = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await pages(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/api/"):
            await api(scope, receive, send)
        else:
            await router(scope, receive, send)

    return app


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``port``, or at the next free port.

    Raises:
        ConfigError: the address is not one of this machine, or no port is free.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"a port is a number from 0 to 65535; got {port}")
    if not host.strip():  # sockets take it for every network
        raise ConfigError(
            "the address to listen at is empty: leave out --host for this machine alone, "
            "or give one of its addresses; 0.0.0.0 is every network"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _PORTS_TRIED, 65_536)):
        # asyncio turns off the delay of small packets only for sockets that are TCP by name: 40 ms an answer otherwise
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name != "nt":  # on Windows the option would share a port that is in use
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, candidate))
            listening.listen(128)
        except (OSError, UnicodeError) as error:
            listening.close()
            busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            if not busy:
                reason = getattr(error, "strerror", None) or str(error)
                raise ConfigError(
                    f"cannot listen at {host}, port {candidate} ({reason}): "
                    "leave out --host for this machine alone, or give one of its addresses"
                ) from error
            continue
        return listening
    raise ConfigError(f"no port from {port} on is free at {host}: give another with --port")


def check_token(token: str | None) -> None:
    """Refuse a token that could be guessed.

    Raises:
        ConfigError: it is short.
    """
    if token is not None and len(token) < _MIN_TOKEN:
        raise ConfigError(
            f"an access token needs at least {_MIN_TOKEN} characters; got {len(token)}. "
            "--token auto makes a good one."
        )


def host_names(host: str) -> frozenset[str] | None:
    """Return the names that a server at an address answers to; None: any."""
    return _LOOPBACK_NAMES | {host.lower()} if is_loopback(host) else None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int) -> str:
    """Return the address to open in a browser on this machine."""
    shown = "localhost" if host in ("0.0.0.0", "::", "localhost") else host
    if ":" in shown:
        shown = f"[{shown}]"
    return f"http://{shown}:{port}/"


def exposure(host: str, token: str | None) -> str:
    """Return the warning that says what others can do if the server listens at ``host``."""
    networks = (
        "every network this machine is in"
        if host in ("0.0.0.0", "::")
        else f"the network of {host}"
    )
    who = "Whoever has the token below" if token else "EVERYBODY there"
    advice = "" if token else "\n         --token auto lets in only those who have a secret token."
    return (
        f"Warning: this is reachable from {networks}. {who} can watch, search and\n"
        "         download all videos of this library, index folders of this machine and forget videos.\n"
        f"         The connection is not encrypted: use it in networks you trust.{advice}"
    )


def _open_when_ready(server: Any, url: str) -> None:
    for _ in range(300):
        if server.started:
            webbrowser.open(url)
            return
        time.sleep(0.1)
