"""A webhook: JSON is posted to an address, signed, and never to a place inside of the network unless that is allowed.

    hook = Webhook("https://example.org/hook", secret="s3cret")
    hook.send(b'{"name": "boats"}')              # None, or why not, and whether to try again

The signature is HMAC-SHA256 (RFC 2104) of the time, a full stop and the body, so an old message cannot be sent again as
a new one. The name of the host is looked up once, its addresses are checked, and the connection goes to a checked
address: a name that points elsewhere a moment later does not help. Redirects are not followed, and no proxy is used.
"""

import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from scanonce.storage.errors import ConfigError

SIGNATURE, TIMESTAMP = "X-Scanonce-Signature", "X-Scanonce-Timestamp"
_SECONDS = 10.0  # to connect, and for each part of an answer
_TRY_AGAIN = frozenset([408, 425, 429])  # and all from 500: what may be over later
_MOST_READ = 65_536  # bytes of an answer; nothing of it is used

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not delivered."""

    reason: str
    may_pass: bool
    """Whether to try again later."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that takes JSON."""

    url: str
    secret: str = field(default="", repr=False)
    """Empty: nothing is signed."""
    allows_private: bool = False
    """Whether the host may be this machine, or in the local network."""

    def __post_init__(self) -> None:
        """Raise ConfigError if the address cannot be one of a webhook."""
        parts = _split(self.url)
        is_web = parts is not None and parts.scheme in ("http", "https") and parts.hostname
        if not is_web or parts is None or parts.username or parts.password:
            raise ConfigError(
                "a webhook is an address such as https://example.org/hook, without a name or a password in it; "
                f"got {self.url}"
            )

    def send(self, body: bytes) -> Refusal | None:
        """Post a body; return None if it was taken (status 200 to 299)."""
        parts = urlsplit(self.url)
        try:
            addresses = self._allowed(_resolve(parts))
        except OSError as error:
            return Refusal(f"{parts.hostname} is not found: {error}", may_pass=True)
        if not addresses:
            return Refusal(
                f"{parts.hostname} is this machine or in a private network: set watch.webhook_private to allow that",
                may_pass=False,
            )
        try:
            status = self._post(parts, addresses[0], body)
        except (OSError, http.client.HTTPException) as error:
            return Refusal(f"{parts.hostname}: {error or type(error).__name__}", may_pass=True)
        if 200 <= status < 300:
            return None
        is_redirect = 300 <= status < 400
        more = ", and redirects are not followed" if is_redirect else ""
        may_pass = status >= 500 or status in _TRY_AGAIN
        return Refusal(f"{parts.hostname} answered {status}{more}", may_pass)

    def _allowed(self, addresses: Sequence[str]) -> list[str]:
        if self.allows_private:
            return list(addresses)
        # one private address is enough to refuse: the others may be there to hide it
        return list(addresses) if all(map(is_public, addresses)) else []

    def _post(self, parts: SplitResult, address: str, body: bytes) -> int:
        connection = _Pinned(parts, address)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", path, body, self._headers(body))
            answer = connection.getresponse()
            answer.read(_MOST_READ)
            return answer.status
        finally:
            connection.close()

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "scanonce"}
        if self.secret:
            now = str(int(time.time()))
            headers |= {TIMESTAMP: now, SIGNATURE: f"sha256={signature(self.secret, now, body)}"}
        return headers


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the hexadecimal HMAC-SHA256 of ``timestamp.body``.

    >>> signature("key", "1", b"{}")[:8]
    '1ba6b817'
    """
    signed = timestamp.encode() + b"." + body
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also if it wraps an IPv4 address.

    >>> [is_public(each) for each in ("93.184.216.34", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1")]
    [True, False, False, False]
    """
    try:
        found = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False
    return found.is_global and not found.is_multicast


def _unwrapped(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        teredo = address.teredo
        return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
    return address


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _resolve(parts: SplitResult) -> list[str]:
    found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever the name of the host points to by now."""

    def __init__(self, parts: SplitResult, address: str) -> None:
        super().__init__(parts.hostname or "", _port(parts), timeout=_SECONDS)
        self._address, self._is_https = address, parts.scheme == "https"
        self.default_port = 443 if self._is_https else 80

    def connect(self) -> None:
        """Connect to the address; with https the certificate is checked by the name of the host."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._is_https:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
