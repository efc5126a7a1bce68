"""Serves the pages (`ui/pages/app.py`, Streamlit) and the media of the library to people on this machine.

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
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from scanonce.storage.errors import ConfigError
from scanonce.storage.layout import IndexLayout
from scanonce.ui.safe_text import visible
from scanonce.ui.server import DEFAULT_PORT, INDEX_VARIABLE
from scanonce.ui.server.cache import proxy_cache
from scanonce.ui.server.guard import AccessGuard
from scanonce.ui.server.routes import Media

if TYPE_CHECKING:
    from streamlit.starlette import App

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
    config: Path | None = None,
    report: Callable[[str], object] = print,
) -> None:
    """Serve an index directory until Ctrl-C. The index need not exist yet.

    Args:
        index_dir: the index to show.
        host: the address to listen at. Any but a loopback address lets others in, and a warning says so.
        port: if it is busy, the next free port is used. 0: any free port.
        token: without it nobody gets in; ``auto`` makes one. Default: no token is needed.
        open_browser: also open the page in a browser.
        config: configuration file for the pages. Default: as for the command line.
        report: called with each line for the terminal.

    Raises:
        ConfigError: the address or the token cannot be used, or no port is free.
    """
    ensure_home()
    import uvicorn
    from streamlit.runtime.runtime_util import get_max_message_size_bytes

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
        app = build_app(index_dir, host=host, port=chosen, token=token)
        url = address(host, chosen)
        if not is_loopback(host):
            report(exposure(host, token))
        report(f"Scanonce shows {visible(index_dir)} at {url} (Ctrl-C ends it)")
        if token is not None:
            report(f"It asks for the token {visible(token)}")
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                log_config=None,  # its records go where those of all others go (`ui.reports`)
                access_log=False,
                server_header=False,
                proxy_headers=False,  # no proxy is expected, so such headers are forged
                ws="websockets-sansio",
                ws_max_size=get_max_message_size_bytes(),
                timeout_graceful_shutdown=3,
            )
        )
        if open_browser:
            threading.Thread(target=_open_when_ready, args=(server, url), daemon=True).start()
        server.run(sockets=[listening])
    finally:
        listening.close()


def build_app(
    index_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    script: Path = SCRIPT,
) -> AccessGuard:
    """Return the whole application: pages and media behind the guard. Streamlit allows one for each process."""
    ensure_home()
    from streamlit.starlette import App
    from streamlit.web import bootstrap

    os.environ[INDEX_VARIABLE] = str(index_dir.resolve())
    layout = IndexLayout.of(index_dir.resolve())
    cache = proxy_cache(layout.root)
    media = Media(layout, cache)

    @contextlib.asynccontextmanager
    async def lifespan(_: "App") -> AsyncIterator[None]:
        yield
        cache.close()
        media.close()

    pages = App(script, lifespan=lifespan)
    options = {**_STREAMLIT_OPTIONS, "server.address": host, "server.port": port}
    bootstrap.load_config_options(dict(options))
    names = _LOOPBACK_NAMES | {host.lower()} if is_loopback(host) else None
    return AccessGuard(_routed(media, pages), names=names, token=token, cookie=f"scanonce_{port}")


def ensure_home() -> None:
    """Set an empty home folder for a user without one, as in some containers; Streamlit does not start without one."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="scanonce-home-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def _routed(media: Media, pages: ASGIApp) -> ASGIApp:
    """Return an application that answers the addresses of the media, and passes all others to the pages.

    Streamlit serves the files of its own widgets at ``/media/NAME`` and accepts no routes of others below ``/media``.
    Ours have one more part and are tried first. They also bypass its compression and sessions.
    """
    router = Router(media.routes(), default=pages)
    router.redirect_slashes = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (pages if scope["type"] == "lifespan" else router)(scope, receive, send)

    return app


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``port``, or at the next free port.

    Raises:
        ConfigError: the address is not one of this machine, or no port is free.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"a port is a number from 0 to 65535; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _PORTS_TRIED, 65_536)):
        listening = socket.socket(family)
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
