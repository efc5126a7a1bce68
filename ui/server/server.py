"""Serves the pages (`ui/pages/app.py`, Streamlit) and the media of the library, for people on this machine.

    serve(Path("~/.scanonce"), port=8501)                              # until Ctrl-C
    serve(index_dir, host="0.0.0.0", token="auto")                     # for others too, by a secret address

Only this machine is answered unless another address is asked for, and only under its own name: a page elsewhere that
makes its name mean 127.0.0.1 gets nothing. With a token nobody gets anything without it, over the websocket neither.
The pages load nothing from other places and tell nobody anything: the browser is told to refuse it too.
"""

import contextlib
import errno
import hashlib
import hmac
import html
import ipaddress
import os
import secrets
import socket
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scanonce.storage.errors import ConfigError
from scanonce.storage.layout import IndexLayout
from scanonce.ui.config import read_config
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.routes import Media

if TYPE_CHECKING:
    from streamlit.starlette import App

SCRIPT = Path(__file__).parents[1] / "pages" / "app.py"
DEFAULT_PORT = 8501
CACHE_BYTES = 4 << 30
"""Room for proxies and clips in the index directory, under ``cache/``."""

INDEX_VARIABLE = "SCANONCE_UI_INDEX"
"""Environment variable that tells the pages the index directory, as ``SCANONCE_CONFIG`` tells the configuration."""

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
    "server.maxUploadSize": 1,
    "server.runOnSave": False,
    "server.showEmailPrompt": False,
}
_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",  # as Streamlit's components need it
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' blob:",
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "frame-src": "'self' data: blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}


# ---------------------------------------------------------------- what the pages ask for


@dataclass(frozen=True, slots=True)
class Served:
    """What this process serves."""

    layout: IndexLayout
    cache: ProxyCache
    """Of proxies and clips; `ui.server.routes.playback` needs it."""


_served: Served | None = None


def current() -> Served:
    """What this process serves; without a server (tests, ``streamlit run``) what the environment names."""
    if _served is not None:
        return _served
    given = os.environ.get(INDEX_VARIABLE)
    return _without_server(read_config().index_path(Path(given) if given else None))


@cache
def _without_server(index_dir: Path) -> Served:
    layout = IndexLayout.of(index_dir)
    return Served(layout, ProxyCache(layout.root / "cache", CACHE_BYTES))


# ---------------------------------------------------------------- serving


def serve(
    index_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    open_browser: bool = False,
    config: Path | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Serves an index directory until Ctrl-C. The index need not be there yet.

    Args:
        index_dir: what to show.
        host: the address to listen at. Any but a loopback one lets others in, and is told.
        port: the next free one after it is taken where it is busy; 0 for any.
        token: without it nobody gets in; ``auto`` makes one. Default: none.
        open_browser: also show the page.
        config: configuration file for the pages. Default: as for the command line.
        say: gets the lines for the terminal.

    Raises:
        ConfigError: the address or token cannot be used, or no port is free.
    """
    import uvicorn
    from streamlit.runtime.runtime_util import get_max_message_size_bytes

    if token == "auto":
        token = secrets.token_urlsafe(24)
    check_token(token)
    listening = listen(host, port)
    try:
        chosen = int(listening.getsockname()[1])
        if port not in (0, chosen):
            say(f"Port {port} is busy: using {chosen}.")
        if config is not None:
            os.environ["SCANONCE_CONFIG"] = str(config.resolve())
        app = build_app(index_dir, host=host, port=chosen, token=token)
        url = address(host, chosen, token)
        if not is_loopback(host):
            say(exposure(host, token))
        say(f"Scanonce shows {index_dir} at {url} (Ctrl-C ends it)")
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nobody between us and the browser is believed
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
) -> "AccessGuard":
    """The whole application: pages and media behind the guard. One a process, as Streamlit has it."""
    global _served
    from streamlit.starlette import App
    from streamlit.web import bootstrap

    os.environ[INDEX_VARIABLE] = str(index_dir.resolve())
    layout = IndexLayout.of(index_dir.resolve())
    cache = ProxyCache(layout.root / "cache", CACHE_BYTES)
    _served = Served(layout, cache)
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
    return AccessGuard(_beside(media, pages), names=names, token=token, cookie=f"scanonce_{port}")


def _beside(media: Media, pages: ASGIApp) -> ASGIApp:
    """The media where their addresses are, else the pages.

    Streamlit keeps what its own widgets show at ``/media/NAME`` and refuses routes of others there; ours have one
    more part, and come first. Nor do they go through its compression and sessions.
    """
    router = Router(media.routes(), default=pages)
    router.redirect_slashes = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (pages if scope["type"] == "lifespan" else router)(scope, receive, send)

    return app


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at ``port``, or at the next free one.

    Raises:
        ConfigError: the address is not one of this machine, or no port is free.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"a port is a number from 0 to 65535; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _PORTS_TRIED, 65_536)):
        listening = socket.socket(family)
        try:
            if os.name != "nt":  # there it would share a port in use
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
    """Refuses a token that could be guessed.

    Raises:
        ConfigError: it is short.
    """
    if token is not None and len(token) < _MIN_TOKEN:
        raise ConfigError(
            f"an access token needs at least {_MIN_TOKEN} characters; got {len(token)}. "
            "--token auto makes a good one."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int, token: str | None) -> str:
    """What to type into a browser on this machine."""
    shown = "localhost" if host in ("0.0.0.0", "::", "localhost") else host
    if ":" in shown:
        shown = f"[{shown}]"
    return f"http://{shown}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")


def exposure(host: str, token: str | None) -> str:
    """What listening at ``host`` lets others do."""
    where = (
        "every network this machine is in"
        if host in ("0.0.0.0", "::")
        else f"the network of {host}"
    )
    who = "whoever has the address below with its token" if token else "EVERYBODY there"
    advice = (
        "" if token else "\n         --token auto lets in only those who have a secret address."
    )
    return (
        f"Warning: this is reachable from {where}. {who[0].upper() + who[1:]} can watch, search and\n"
        "         download all videos of this library, index folders of this machine and forget videos.\n"
        f"         The connection is not encrypted: use it in networks you trust.{advice}"
    )


def _open_when_ready(server: Any, url: str) -> None:
    for _ in range(300):
        if server.started:
            webbrowser.open(url)
            return
        time.sleep(0.1)


# ---------------------------------------------------------------- the guard


class AccessGuard:
    """ASGI middleware before everything, websockets too: who may ask, from where, by which name."""

    def __init__(
        self, app: ASGIApp, *, names: frozenset[str] | None, token: str | None, cookie: str
    ) -> None:
        """
        Args:
            app: what is guarded.
            names: host names that may be asked for, lower case. None: any.
            token: what lets people in. None: everybody.
            cookie: name of the cookie that remembers it, another for each port.
        """
        self._app = app
        self._names = names
        self._token = token
        self._cookie = cookie
        # the cookie proves the token without containing it
        key = (token or secrets.token_urlsafe()).encode("utf-8", "surrogatepass")
        self._proof = hmac.new(key, b"scanonce cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers itself, or passes on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            if scope["type"] == "http":
                send = _with_headers(send, Headers(scope=scope).get("host", ""))
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or (self._names is not None and _name_of(hosts[0]) not in self._names):
            return _plain(421, "This server answers only to its own name: use the address it told.")
        if not self._is_same_site(scope, headers):
            return _plain(403, "Other sites may not use this one.")
        if self._token is None or self._has_cookie(headers):
            return None
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
        if given is not None and _equal(given, self._token):
            return self._welcome(scope) if scope["type"] == "http" else None
        return _plain(401, "Open the address that was printed in the terminal: it has the token.")

    def _is_same_site(self, scope: Scope, headers: Headers) -> bool:
        """Pages of others may link to ours; they may not connect, embed or load from here."""
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
            return False
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return (
                scope["type"] == "http"
                and scope["method"] == "GET"
                and headers.get("sec-fetch-mode") == "navigate"
                and headers.get("sec-fetch-dest") == "document"
                and not scope["path"].startswith("/media/")
            )
        return True

    def _has_cookie(self, headers: Headers) -> bool:
        for header in headers.getlist("cookie"):
            given = cookie_parser(header).get(self._cookie)
            if given is not None and _equal(given, self._proof):
                return True
        return False

    def _welcome(self, scope: Scope) -> Response:
        """Sets the cookie, and has the browser ask again without the token.

        A redirect would not do: where a link elsewhere led here, the browser sends no strict cookie after it.
        """
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + quote(scope["path"].lstrip("/\\"), safe="/")  # "//x" would be another host
        target = html.escape(path + (f"?{rest}" if rest else ""), quote=True)
        response = HTMLResponse(
            '<!doctype html><meta charset="utf-8"><title>Scanonce</title>'
            f'<meta http-equiv="refresh" content="0; url={target}">'
            f'<p><a href="{target}">Continue</a></p>',
            headers={**_REFUSAL_HEADERS, "Referrer-Policy": "no-referrer"},
        )
        response.set_cookie(
            self._cookie, self._proof, max_age=30 * 86_400, httponly=True, samesite="strict"
        )
        return response


_REFUSAL_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def _plain(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=status, headers=_REFUSAL_HEADERS)


def _equal(given: str, expected: str) -> bool:
    """Without telling by the time it takes how much of it is right."""
    encoded = (text.encode("utf-8", "surrogatepass") for text in (given, expected))
    return hmac.compare_digest(*(hashlib.sha256(each).digest() for each in encoded))


def _name_of(host: str) -> str | None:
    """The name in a Host header, lower case; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None or parts.path or parts.query:
        return None
    return parts.hostname


def _with_headers(send: Send, host: str) -> Send:
    """Adds what keeps a page from loading anything from elsewhere, where the answer does not say it."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            own = f"ws://{host} wss://{host}" if _name_of(host) else ""  # not 'self' everywhere
            policy = {**_POLICY, "connect-src": f"'self' data: blob: {own}".strip()}
            headers.setdefault(
                "Content-Security-Policy",
                "; ".join(f"{name} {sources}" for name, sources in policy.items()),
            )
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("X-Frame-Options", "SAMEORIGIN")
            headers.setdefault("Referrer-Policy", "no-referrer")
        await send(message)

    return wrapped
