"""Who may use the HTTP API: whoever sends a token with the scope that an address needs."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from scanonce.storage.errors import ConfigError
from scanonce.ui.api.tokens import Scope, Token, Tokens

_TOKEN = "scanonce.token"  # key of an ASGI scope
_MISSING = "this needs a token: `scanonce token add NAME` makes one; send it as Authorization: Bearer TOKEN"
_BEARER = HTTPBearer(auto_error=False, description="Made by `scanonce token add NAME`.")


class TokenGuard:
    """ASGI middleware that refuses a request without a token before its body is read."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        open_to_all: frozenset[str],
        *,
        needed: tuple[Scope, ...] = (),
    ) -> None:
        """
        Args:
            app: the application.
            tokens: those that are let in.
            open_to_all: paths that need none.
            needed: scopes that each token must have.
        """
        self._app, self._tokens, self._open = app, tokens, open_to_all
        self._needed = needed

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on with its token."""
        if scope["type"] == "http" and scope["path"] not in self._open:
            try:
                token = self._tokens.find(_bearer(Headers(scope=scope).get("authorization", "")))
            except ConfigError as error:
                await _refusal(503, str(error))(scope, receive, send)
                return
            if token is None:
                await _refusal(401, _MISSING)(scope, receive, send)
                return
            if missing := [each for each in self._needed if each not in token.scopes]:
                text = f"this needs a token with the scope {missing[0]}"
                await _refusal(403, text)(scope, receive, send)
                return
            scope[_TOKEN] = token
        await self._app(scope, receive, send)


def token_of(scope: AsgiScope) -> Token:
    """Return the token of a request that `TokenGuard` has passed on."""
    token = scope[_TOKEN]
    assert isinstance(token, Token)
    return token


def needs(wanted: Scope) -> Callable[..., Any]:
    """Return the dependency of an address: a token with a scope."""

    # the bearer is read by the guard; here it is named for the OpenAPI document
    async def check(request: Request, _: Annotated[Any, Depends(_BEARER)]) -> None:
        if wanted not in token_of(request.scope).scopes:
            raise HTTPException(403, f"this needs a token with the scope {wanted}")

    return check


def _bearer(header: str) -> str:
    """Return the token of a header; empty if it has none."""
    kind, _, secret = header.partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


def _refusal(status: int, text: str) -> JSONResponse:
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": text}, status, headers)
