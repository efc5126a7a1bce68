"""Tells files that only have the extension of a video from videos, by their first bytes."""

from pathlib import Path

_HEAD_BYTES = 4096
_SYNC_BYTES = 1 << 20
"""A recording that is damaged at its beginning has whole packets within these."""

_TRANSPORT_STREAMS = frozenset((".ts", ".mts", ".m2ts"))
"""Extensions that other programs use too: TypeScript, translations, schematics of games."""
_PACKET_SIZES = (188, 192, 204)  # plain, with a time stamp, with error correction
_PACKETS_IN_STEP = 5

_TEXT_CONTROLS = frozenset(b"\t\n\v\f\r\b\x1b")
_CONTROLS = bytes(set(range(32)) - _TEXT_CONTROLS) + b"\x7f"
_HIGH = bytes(range(128, 256))
_CONTROL_CHARACTERS = frozenset(map(chr, _CONTROLS))
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}

# At the beginning, and four bytes after it: other containers, which some programs call .ts all the same.
# fmt: off
_CONTAINERS = (
    b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"OggS", b"\x30\x26\xb2\x75", b"\x00\x00\x01",
    b"\x00\x00\x00\x01", b"\x06\x0e\x2b\x34",
)
# fmt: on
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"uuid")


def is_other_content(path: Path) -> bool:
    """Whether a file cannot be a video: it is text, or it has the extension of a transport stream and is none.

    Reads the first 4 kB, of the latter the first megabyte. An empty file, or one that begins with zeros only because
    its content is still to come, may be a video: its decoder reports why it fails.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if not head.strip(b"\0"):
            return False
        if _is_text(head):
            return True
        if path.suffix.lower() not in _TRANSPORT_STREAMS or _is_container(head):
            return False
        return not _is_transport_stream(head + file.read(_SYNC_BYTES))


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8, UTF-16 or mostly ASCII, without the control characters that text does not have."""
    if encoding := _UTF16.get(head[:2]):
        text = head[2 : len(head) // 2 * 2].decode(encoding, "replace")
        return "\ufffd" not in text[:-1] and _CONTROL_CHARACTERS.isdisjoint(text)
    if len(head.translate(None, _CONTROLS)) < len(head):
        return False
    num_ascii = len(head.translate(None, _HIGH))
    num_utf8 = len(head.decode("utf-8", "ignore").encode())
    is_utf8 = num_utf8 >= len(head) - 3  # the last character may be cut
    return is_utf8 or 2 * num_ascii >= len(head)


def _is_container(head: bytes) -> bool:
    return head.startswith(_CONTAINERS) or head[4:8] in _BOXES


def _is_transport_stream(data: bytes) -> bool:
    """Whether some packets in a row begin with the byte 0x47."""
    start = data.find(b"\x47")
    while start >= 0:
        for size in _PACKET_SIZES:
            if data[start : start + size * _PACKETS_IN_STEP : size] == b"\x47" * _PACKETS_IN_STEP:
                return True
        start = data.find(b"\x47", start + 1)
    return False
