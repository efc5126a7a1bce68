"""Access control in front of the pages and the media: who may ask, from which site, under which name."""

import hashlib
import hmac
import html
import secrets
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Streamlit's components need these
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
_REFUSAL_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


_FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Scanonce</title>
<style>
  :root {{ color-scheme: light dark; font-family: sans-serif }}
  form {{ max-width: 24rem; margin: 20vh auto 0; padding: 0 1rem; display: grid; gap: .5rem }}
  input, button {{ font: inherit; padding: .5rem }}
</style>
<form method="post" action="{action}">
  <label for="token">Token</label>
  <input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
  <button>Open the library</button>
  <p role="status">{problem}</p>
  <p>The token was printed in the terminal when the server started.</p>
</form>
"""
_MOST_BYTES, _MOST_FIELDS = 4096, 20
"""Limits on a form."""


class AccessGuard:
    """ASGI middleware that checks every request, websockets included, before anything else sees it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: frozenset[str] | None,
        token: str | None,
        cookie: str,
        with_own_tokens: str = "/api/",
    ) -> None:
        """
        Args:
            app: the guarded application.
            names: host names that are answered, lower case. None: any.
            token: what lets people in. None: everybody gets in.
            cookie: name of the cookie that remembers the token. Browsers share cookies between ports, so each port
                needs its own name.
            with_own_tokens: beginning of the paths whose application asks for tokens of its own.
        """
        self._app = app
        self._names = names
        self._token = token
        self._cookie = cookie
        self._with_own_tokens = with_own_tokens
        # the cookie proves the token without containing it
        key = (token or secrets.token_urlsafe()).encode("utf-8", "surrogatepass")
        self._proof = hmac.new(key, b"scanonce cookie", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope) or await self._asked(scope, receive)
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
            return _plain(
                421,
                "This server answers only to its own name: use the address printed in the terminal.",
            )
        if not self._is_same_site(scope, headers):
            return _plain(403, "Other sites may not use this one.")
        return None

    async def _asked(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the answer to who has not shown the token yet: the form that asks for it, or the cookie for it."""
        headers = Headers(scope=scope)
        is_asked_later = scope["path"].startswith(self._with_own_tokens)
        if self._token is None or is_asked_later or self._has_cookie(headers):
            return None
        if self._is_token(_fields(scope["query_string"]).get("token")):
            return self._welcome(scope) if scope["type"] == "http" else None
        if scope["type"] != "http" or not _is_for_people(scope, headers):
            return _plain(401, "This needs the token that was printed in the terminal.")
        if scope["method"] != "POST":
            return _form(scope)
        if not self._is_token(_fields(await _body(receive)).get("token")):
            return _form(scope, "That is not the token.")
        return self._with_cookie(
            RedirectResponse(_without_token(scope), 303, headers=_REFUSAL_HEADERS)
        )

    def _is_token(self, given: str | None) -> bool:
        return given is not None and self._token is not None and _equal(given, self._token)

    def _is_same_site(self, scope: Scope, headers: Headers) -> bool:
        """Return whether the request is allowed: other sites may link here, but not connect, embed or load."""
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
            return False
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return (
                scope["type"] == "http"
                and scope["method"] == "GET"
                and headers.get("sec-fetch-mode") == "navigate"
                and headers.get("sec-fetch-dest") == "document"
                and not scope["path"].startswith(("/media/", "/api/"))
            )
        return True

    def _has_cookie(self, headers: Headers) -> bool:
        for header in headers.getlist("cookie"):
            given = cookie_parser(header).get(self._cookie)
            if given is not None and _equal(given, self._proof):
                return True
        return False

    def _welcome(self, scope: Scope) -> Response:
        """Return a page that sets the cookie and has the browser ask again without the token.

        A redirect does not work: after a link from another site the browser sends no strict cookie with it.
        """
        target = html.escape(_without_token(scope), quote=True)
        response = HTMLResponse(
            '<!doctype html><meta charset="utf-8"><title>Scanonce</title>'
            f'<meta http-equiv="refresh" content="0; url={target}">'
            f'<p><a href="{target}">Continue</a></p>',
            headers={**_REFUSAL_HEADERS, "Referrer-Policy": "no-referrer"},
        )
        return self._with_cookie(response)

    def _with_cookie(self, response: Response) -> Response:
        response.set_cookie(
            self._cookie, self._proof, max_age=30 * 86_400, httponly=True, samesite="strict"
        )
        return response


def _is_for_people(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser asks for something to show, so that a form can be the answer."""
    return "text/html" in headers.get("accept", "") and not scope["path"].startswith("/media/")


def _fields(encoded: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(encoded.decode("latin-1"), max_num_fields=_MOST_FIELDS))
    except ValueError:
        return {}


async def _body(receive: Receive) -> bytes:
    """Return the body of a request; nothing of one that is too long for a form."""
    body = b""
    while len(body) <= _MOST_BYTES:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body
    return b""


def _without_token(scope: Scope) -> str:
    """Return the address of a request on this server, without the token."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    rest = urlencode([(name, value) for name, value in query if name != "token"])
    path = "/" + quote(scope["path"].lstrip("/\\"), safe="/")  # "//x" would be another host
    return path + (f"?{rest}" if rest else "")


def _form(scope: Scope, problem: str = "") -> Response:
    """Return the form that asks for the token and then leads to the address that was asked for."""
    return HTMLResponse(
        _FORM.format(action=html.escape(_without_token(scope), quote=True), problem=problem),
        status_code=401,
        headers={
            **_REFUSAL_HEADERS,
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
            "frame-ancestors 'none'",
            "Referrer-Policy": "same-origin",  # without a referrer a browser does not name the origin of a form
        },
    )


def _plain(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=status, headers=_REFUSAL_HEADERS)


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on how much of the text is right."""
    encoded = (text.encode("utf-8", "surrogatepass") for text in (given, expected))
    return hmac.compare_digest(*(hashlib.sha256(each).digest() for each in encoded))


def _name_of(host: str) -> str | None:
    """Return the name in a Host header, lower case; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None or parts.path or parts.query:
        return None
    return parts.hostname


def _with_headers(send: Send, host: str) -> Send:
    """Add the headers that keep a page from loading anything from other hosts, unless the answer has its own."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            # in some browsers 'self' does not cover websockets
            own = f"ws://{host} wss://{host}" if _name_of(host) else ""
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
