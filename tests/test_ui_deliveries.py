"""Webhooks and commands for matches of saved searches, with a server on this machine."""

import hashlib
import hmac
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scanonce.indexer.settings import WatchSettings
from scanonce.storage.errors import ConfigError
from scanonce.ui import deliveries
from scanonce.ui.deliveries import Deliveries, run_command
from scanonce.ui.matches import places
from scanonce.ui.webhook import SIGNATURE, TIMESTAMP, Refusal, Webhook, is_public

BODY = b'{"name": "boats"}'


class Asked:
    """What a server was asked, and what it answers, one status after another."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def serving(*statuses: int) -> Iterator[Asked]:
    asked = Asked(*statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.requests.append((self.path, dict(self.headers), body))
            status = asked.statuses.pop(0) if asked.statuses else 200
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{asked.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    asked.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_body_is_posted_with_a_signature_of_time_and_body() -> None:
    with serving() as asked:
        assert Webhook(f"{asked.url}/hook?a=1", "s3cret", allows_private=True).send(BODY) is None
    ((path, headers, body),) = asked.requests
    assert (path, body, headers["Content-Type"]) == ("/hook?a=1", BODY, "application/json")
    signed = headers[TIMESTAMP].encode() + b"." + BODY
    assert headers[SIGNATURE] == f"sha256={hmac.new(b's3cret', signed, hashlib.sha256).hexdigest()}"


def test_nothing_is_signed_without_a_key() -> None:
    with serving() as asked:
        assert Webhook(asked.url, allows_private=True).send(BODY) is None
    assert SIGNATURE not in asked.requests[0][1]


def test_this_machine_is_refused_unless_it_is_allowed() -> None:
    with serving() as asked:
        refusal = Webhook(asked.url).send(BODY)
    assert refusal is not None
    assert "set watch.webhook_private" in refusal.reason
    assert not refusal.may_pass
    assert asked.requests == []


def test_a_name_is_judged_by_the_address_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [["93.184.216.34", "10.0.0.1"], ["127.0.0.1"]]

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "hook.test"
        found = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for _ in range(2):
        refusal = Webhook("http://hook.test/").send(BODY)
        assert refusal is not None
        assert not refusal.may_pass, "one private address among public ones is enough"
    connected: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError("no")

    answers.append(["93.184.216.34"])  # a second look-up would fail: there is no other answer
    monkeypatch.setattr(socket, "create_connection", connect)
    refusal = Webhook("https://hook.test/").send(BODY)
    assert connected == [("93.184.216.34", 443)]
    assert refusal is not None
    assert refusal.may_pass


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "no address",
    ],
)  # fmt: skip
def test_addresses_inside_a_network_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_addresses_of_the_internet_are_public() -> None:
    assert all(map(is_public, ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"]))


def test_a_redirect_is_not_followed() -> None:
    with serving(307) as asked:
        refusal = Webhook(asked.url, allows_private=True).send(BODY)
    assert refusal == Refusal("127.0.0.1 answered 307, and redirects are not followed", False)
    assert len(asked.requests) == 1


@pytest.mark.parametrize(
    "url", ["", "ftp://a/b", "http://", "https://a:b@c/", "http://a:x/", "/hook", "http://[::1"]
)
def test_an_address_that_is_no_webhook_is_an_error(url: str) -> None:
    with pytest.raises(ConfigError, match="a webhook is an address such as"):
        Webhook(url)


def deliver(*sends: deliveries.Send, messages: int = 1) -> list[str]:
    """Deliver messages and return what was reported."""
    said: list[str] = []
    all_done = threading.Barrier(len(sends) + 1)

    def waiting(send: deliveries.Send) -> deliveries.Send:
        def last(message: bytes) -> Refusal | None:
            if message == b"last":
                all_done.wait(60)
                return None
            return send(message)

        return last

    queue = Deliveries([waiting(each) for each in sends], report=said.append, first_pause_seconds=0)
    for _ in range(messages):
        queue.put(BODY)
    queue.put(b"last")
    all_done.wait(60)
    queue.close()
    return said


def test_what_may_pass_is_tried_again_until_it_is_taken() -> None:
    with serving(503, 429, 200) as asked:
        said = deliver(Webhook(asked.url, allows_private=True).send)
    assert [body for _, _, body in asked.requests] == [BODY] * 3
    assert said == []


def test_what_will_not_pass_is_given_up_with_a_line() -> None:
    with serving(404) as asked:
        said = deliver(Webhook(asked.url, allows_private=True).send)
    assert len(asked.requests) == 1
    assert said == ["a message is given up: 127.0.0.1 answered 404"]
    tries: list[bytes] = []

    def never(message: bytes) -> Refusal:
        tries.append(message)
        return Refusal("busy", may_pass=True)

    assert deliver(never) == ["a message is given up: busy"]
    assert len(tries) == deliveries.TRIES


def test_a_full_queue_drops_the_oldest_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MOST_WAITING", 2)
    taken, free = [], threading.Event()
    begun = threading.Event()

    def slow(message: bytes) -> None:
        begun.set()
        free.wait(60)
        taken.append(message)

    said: list[str] = []
    queue = Deliveries([slow], report=said.append)
    queue.put(b"0")
    assert begun.wait(60)
    for number in range(1, 5):
        queue.put(str(number).encode())
    free.set()
    queue.close(60)
    assert taken == [b"0", b"3", b"4"]
    assert said == ["2 messages wait: the oldest is dropped"] * 2


def test_a_command_gets_the_message_and_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "$(touch x); out"
    script = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    assert run_command([sys.executable, "-c", script, str(out)])(BODY) is None
    assert json.loads(out.read_bytes()) == {"name": "boats"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('no room')"], "exit code 1: no room"),
        (["/nowhere/at-all"], "/nowhere/at-all cannot be run"),
    ],
)
def test_a_command_that_fails_says_why(words: list[str], said: str) -> None:
    refusal = run_command(words)(BODY)
    assert refusal is not None
    assert said in refusal.reason
    assert not refusal.may_pass


def test_the_places_are_those_of_the_settings_and_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert places(WatchSettings(), None) == []
    both = WatchSettings(command=(sys.executable,), webhook="https://a.test/", webhook_secret="k")
    assert len(places(both, None)) == 2
    assert "k'" not in repr(both), "a key is not printed"
    for command, said in (
        ("'", "cannot be read"),
        (" ", "needs a program"),
        ("no-such", "no program"),
    ):
        with pytest.raises(ConfigError, match=said):
            places(WatchSettings(), command)
    monkeypatch.setenv("SCANONCE_WEBHOOK_SECRET", "other")
    (send,) = places(WatchSettings(webhook="https://a.test/", webhook_secret="k"), None)
    assert send.__self__.secret == "other"  # type: ignore[attr-defined]
