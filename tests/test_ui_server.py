"""Access by name, site and token; and the whole application, which serves pages and media together."""

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from scanonce.storage.errors import ConfigError
from scanonce.ui.pages.session import shared
from scanonce.ui.server.cache import proxy_cache
from scanonce.ui.server.guard import AccessGuard
from scanonce.ui.server.server import address, check_token, exposure, is_loopback, listen
from tests.background import wait_for
from tests.ui_library import shown_index
from tests.ui_server import Server

TOKEN = "a-token-that-is-long"
NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
LOCAL = "http://localhost:8501"


async def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"page {request.url.path}?{request.url.query}")


async def _socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("in")
    await websocket.close()


def _client(*, names: frozenset[str] | None = NAMES, token: str | None = None) -> TestClient:
    inner = Starlette(
        routes=[WebSocketRoute("/_stcore/stream", _socket), Route("/{rest:path}", _page)]
    )
    guard = AccessGuard(inner, names=names, token=token, cookie="scanonce_8501")
    return TestClient(guard, base_url=LOCAL)


def _connects(client: TestClient, **headers: str) -> bool:
    try:
        with client.websocket_connect(
            "ws://localhost:8501/_stcore/stream", headers=headers
        ) as session:
            return bool(session.receive_text() == "in")
    except WebSocketDisconnect:
        return False


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8501", "127.0.0.1:8501", "[::1]:8501", "localhost:99"]
)
def test_own_names_are_answered(host: str) -> None:
    client = _client()
    assert client.get("/", headers={"Host": host}).status_code == 200
    assert _connects(client, Host=host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8501", "localhost.evil.example", "127.0.0.1.nip.io"),
        *("", "localhost:x", "a@localhost", "localhost/x", "localhost?", "127.0.0.2", "[::1"),
    ],
)
def test_a_foreign_name_that_resolves_to_this_machine_is_refused(host: str) -> None:
    client = _client()
    assert client.get("/", headers={"Host": host}).status_code == 421
    assert not _connects(client, Host=host)


def test_with_another_address_any_name_is_answered() -> None:
    client = _client(names=None)
    assert client.get("/", headers={"Host": "studio.local:8501"}).status_code == 200


# ---------------------------------------------------------------- other sites


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:3000", "null", "http://localhost.evil:8501"]
)
def test_another_site_can_neither_connect_nor_request(origin: str) -> None:
    client = _client()
    assert not _connects(client, Origin=origin)
    assert client.get("/", headers={"Origin": origin}).status_code == 403


def test_own_pages_can() -> None:
    client = _client()
    assert _connects(client, Origin=LOCAL, Host="localhost:8501")
    headers = {"Origin": LOCAL, "Host": "localhost:8501", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/", headers=headers).status_code == 405
    assert client.get("/media/videos/1", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "mode", "destination", "expected"),
    [
        ("/", "navigate", "document", 200),
        ("/moment", "navigate", "document", 200),
        ("/", "navigate", "iframe", 403),
        ("/", "no-cors", "image", 403),
        ("/media/thumbs/1/0.jpg", "no-cors", "image", 403),
        ("/media/clips/1/0-5.mp4", "navigate", "document", 403),
    ],
)
def test_another_site_may_link_but_not_embed(
    path: str, mode: str, destination: str, expected: int
) -> None:
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": mode,
        "Sec-Fetch-Dest": destination,
    }
    assert _client().get(path, headers=headers).status_code == expected


def test_pages_may_load_nothing_from_elsewhere() -> None:
    headers = _client().get("/").headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*", policy)
    assert "ws://localhost:8501" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


# ---------------------------------------------------------------- the token


PATHS = ("/", "/search", "/media/videos/1", "/_stcore/health", "/static/js/index.js")


def test_without_a_token_everybody_on_this_machine_gets_in() -> None:
    assert _connects(_client())
    assert _client().get("/media/videos/1").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_answered(path: str) -> None:
    client = _client(token=TOKEN)
    for given in ("", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}"):
        response = client.get(path + given)
        assert response.status_code == 401
        assert "page" not in response.text
        assert "set-cookie" not in response.headers
    for cookie in ("", "x", TOKEN, "\u00ff"):
        sent = {"Cookie": f"scanonce_8501={cookie}".encode("latin-1").decode("latin-1")}
        if cookie.isascii():
            assert client.get(path, headers=sent).status_code == 401
    assert not _connects(client)


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get() -> None:
    client = _client(token=TOKEN)
    response = client.get(f"/search?q=a%20car&token={TOKEN}")
    assert response.status_code == 200
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert 'content="0; url=/search?q=a+car"' in response.text
    assert TOKEN not in response.text
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"

    assert client.get("/media/videos/1").text.startswith("page /media/videos/1")
    assert _connects(client)


BROWSER = {"Accept": "text/html,*/*;q=0.8", "Origin": LOCAL}


def test_a_browser_is_asked_for_the_token_and_gets_the_cookie_for_it() -> None:
    client = _client(token=TOKEN)
    asked = client.get("/search?q=a%20car&token=wrong", headers=BROWSER)
    assert asked.status_code == 401
    assert "wrong" not in asked.text
    action = re.search(r'<form method="post" action="([^"]*)"', asked.text)
    assert action
    assert action[1] == "/search?q=a+car"
    assert "form-action 'self'" in asked.headers["content-security-policy"]
    assert asked.headers["referrer-policy"] == "same-origin"
    for wrong in ({}, {"token": TOKEN[:-1]}, {"token": ""}, {"token": "x" * 10_000}):
        refused = client.post(action[1], data=wrong, headers=BROWSER)
        assert refused.status_code == 401
        assert "That is not the token." in refused.text
        assert "set-cookie" not in refused.headers
    answer = client.post(action[1], data={"token": TOKEN}, headers=BROWSER, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/search?q=a+car")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/media/videos/1").text.startswith("page /media/videos/1")
    assert _connects(client)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_another_site_cannot_send_the_form(origin: str) -> None:
    sent = {**BROWSER, "Origin": origin}
    answer = _client(token=TOKEN).post("/", data={"token": TOKEN}, headers=sent)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "/\\evil.example", '/"><script>alert(1)</script>']
)
def test_the_form_goes_on_to_no_other_site(path: str) -> None:
    client = _client(token=TOKEN)
    asked = client.get(f"{LOCAL}{path}", headers=BROWSER)
    assert asked.status_code == 401
    assert "<script>" not in asked.text
    sent = client.post(
        f"{LOCAL}{path}", data={"token": TOKEN}, headers=BROWSER, follow_redirects=False
    )
    assert sent.status_code == 303
    assert re.match(r"/(?![/\\])", sent.headers["location"])


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "/\\evil.example", '/"><script>alert(1)</script>']
)
def test_the_welcome_page_links_to_no_other_site(path: str) -> None:
    client = _client(token=TOKEN)
    text = client.get(f"{LOCAL}{path}", params={"token": TOKEN, "q": '"><script>'}).text
    target = re.search(r'url=([^"]*)"', text)
    assert target
    assert re.match(r"/(?![/\\])", target[1])
    assert "<script>" not in text


def test_a_cookie_of_another_token_does_not_help() -> None:
    first = _client(token=TOKEN)
    first.get(f"/?token={TOKEN}")
    second = _client(token=TOKEN + "2")
    second.cookies = first.cookies
    assert second.get("/").status_code == 401


def test_a_short_token_is_refused() -> None:
    check_token(None)
    check_token(TOKEN)
    for token in ("", "short"):
        with pytest.raises(ConfigError, match="12 characters"):
            check_token(token)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("studio.local", False),
    ],
)
def test_which_addresses_only_this_machine_can_reach(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_address_to_open() -> None:
    assert address("127.0.0.1", 8501) == "http://127.0.0.1:8501/"
    assert address("0.0.0.0", 80) == "http://localhost:80/"
    assert address("::1", 8501) == "http://[::1]:8501/"


def test_the_warning_says_what_is_exposed() -> None:
    assert "EVERYBODY" in exposure("0.0.0.0", None)
    assert "--token auto" in exposure("0.0.0.0", None)
    assert "not encrypted" in exposure("192.168.1.5", TOKEN)
    assert "192.168.1.5" in exposure("192.168.1.5", TOKEN)
    assert TOKEN not in exposure("192.168.1.5", TOKEN)


def test_small_packets_are_not_held_back() -> None:
    """asyncio sets TCP_NODELAY on accepted sockets whose protocol is TCP by number; they have that of the listener."""
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.proto == socket.IPPROTO_TCP


def test_the_next_free_port_is_taken_where_one_is_busy() -> None:
    with listen("127.0.0.1", 0) as first:
        busy = first.getsockname()[1]
        with listen("127.0.0.1", busy) as second:
            assert busy < second.getsockname()[1] < busy + 50


@pytest.mark.parametrize(
    ("host", "port"),
    [("203.0.113.7", 8501), ("no such name", 8501), ("127.0.0.1", 70_000), ("", 0), (" ", 0)],
)
def test_an_address_of_another_machine_is_refused_with_a_message(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen|a port is|is empty"):
        listen(host, port)


# ---------------------------------------------------------------- the whole


def test_pages_know_the_index_without_a_server_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in shown_index(tmp_path, monkeypatch):
        assert shared().layout.root == tmp_path
        cache = proxy_cache(shared().index_dir)
        assert proxy_cache(tmp_path) is cache
        cache.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[str]:
    """The address of a server of an empty index directory, without its token."""
    with Server(tmp_path / "index", tmp_path, token=TOKEN) as server:
        url = server.url.removesuffix("/")
        # the address is printed before the server accepts connections
        wait_for(lambda: server.process.poll() is not None or _status(url + "/") == 401)
        assert server.process.poll() is None
        yield url
        server.process.terminate()
        assert server.process.wait(timeout=600) in (0, -15, 143)


def _status(url: str, **headers: str) -> int:
    return _open(url, **headers)[0]


def _open(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=600
        ) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)
    except (urllib.error.URLError, ConnectionError):
        return 0, "", {}


def test_the_server_serves_pages_and_media_to_those_with_the_token(running: str) -> None:
    assert _status(f"{running}/_stcore/health") == 401
    status, form, _ = _open(f"{running}/", Accept="text/html")
    assert status == 401
    assert 'name="token"' in form
    status, _, headers = _open(f"{running}/?token={TOKEN}")
    assert status == 200
    cookie = {"Cookie": headers["set-cookie"].split(";")[0]}
    status, page, headers = _open(f"{running}/", **cookie)
    assert status == 200
    assert "<title>Streamlit</title>" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert _status(f"{running}/_stcore/health", **cookie) == 200
    config = _open(f"{running}/_stcore/host-config", **cookie)[1]
    assert "streamlit.io" not in config
    assert _open(f"{running}/media/videos/1", **cookie)[:2] == (404, "nothing is indexed yet")
    assert _status(f"{running}/media/../ui/app.py", **cookie) in (400, 404)
    assert _status(f"{running}/_stcore/health", Host="evil.example", **cookie) == 421
