"""The pictures, videos and clips of a library over HTTP. Addresses carry ids of the catalogue, never paths.

    GET /media/videos/7                    the file itself; HTTP ranges, so a player loads what it shows
    GET /media/proxies/7                   a small copy that every browser plays; 202 while it is made
    GET /media/proxies/7/state             {"state": "making", "progress": 0.4, "reason": null}
    GET /media/thumbs/7/61500.jpg          the stored picture at 61.5 s, or a grey one
    GET /media/frames/7/61533.jpg          the frame shown at 61.533 s, decoded now
    GET /media/clips/7/61533-70000.mp4     [61.533, 70) as a download; waits until it is cut
    GET /media/clips/7/61533-70000.mp4/state

An id that is not in the catalogue, or whose file is not there now, is a 404 that says why in a sentence. Whatever
blocks runs in threads, whatever decodes in a guarded child process (`media.cut`).
"""

import asyncio
import contextlib
import json
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial, wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from scanonce.media.cut import Progress, frame_jpeg, probe, write_clip, write_proxy
from scanonce.media.playable import MediaFacts, playable
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, ScanonceError, VideoError
from scanonce.storage.files import write_whole
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span, Video
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.ui.server.cache import ProxyCache

MAX_CLIP_SECONDS = 600.0
PROXY_HEIGHT = 480
FRAME_WIDTH = 480


P = ParamSpec("P")
T = TypeVar("T")

_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # what browsers play of QuickTime is the same; some refuse its own name
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".ts": "video/mp2t",
    ".mts": "video/mp2t",
    ".m2ts": "video/mp2t",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".ogv": "video/ogg",
}
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
}
_REVALIDATE = {**_SAFE, "Cache-Control": "private, no-cache"}
_NEVER_KEPT = {**_SAFE, "Cache-Control": "private, no-store"}
_KEPT_A_DAY = {**_SAFE, "Cache-Control": "private, max-age=86400"}
_MAX_FRAMES = 128
_MAX_NAME = 120


# ---------------------------------------------------------------- what is made on demand


# ---------------------------------------------------------------- how a video is played


@dataclass(frozen=True, slots=True)
class Playback:
    """What a player is to load."""

    url: str
    is_proxy: bool
    """Then it may have to be made first: ask ``state_url``."""
    state_url: str | None
    offset_seconds: float
    """Where the player's clock is at the first frame: add it to our times."""
    note: str | None
    """For people: why it is a proxy."""


def playback(video: Video, cache: ProxyCache) -> Playback:
    """How a browser can play a video; the first time for each it looks into the file, 0.3 s.

    Raises:
        VideoError: the file is not there now, or cannot be read any more.
    """
    facts = media_facts(video, cache)
    if playable(facts):
        return Playback(f"/media/videos/{video.video_id}", False, None, facts.offset_seconds, None)
    url = f"/media/proxies/{video.video_id}"
    kind = " ".join(filter(None, (facts.video_codec, facts.audio_codec)))
    note = (
        f"Browsers cannot play this file as it is ({facts.container}, {kind}): this is a small copy. "
        "Clips are cut from the original."
    )
    return Playback(url, True, f"{url}/state", 0.0, note)


def media_facts(video: Video, cache: ProxyCache) -> MediaFacts:
    """Container and codecs of a video, remembered beside the cache's files."""
    remembered = cache.folder / f"facts-{video.uid}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return MediaFacts(**json.loads(remembered.read_text("utf-8")))
    facts = probe(find_file(video))
    content = json.dumps(asdict(facts)).encode()
    with contextlib.suppress(IndexDirectoryError):  # then it is looked at again next time
        write_whole(remembered, lambda file: file.write(content))
    return facts


def find_file(video: Video) -> Path:
    """The first of a video's files that is there now.

    Raises:
        VideoError: none is.
    """
    for path in video.paths:
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(path.stat().st_mode):
                return path
    raise VideoError(
        f"the file is offline: {_shown(video.path.name)} is not where it was indexed. "
        "Connect its drive, or index the library again."
    )


# ---------------------------------------------------------------- the routes


class _Refused(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _CachedFile(FileResponse):
    """A file of the cache, which stays there until it is sent."""

    def __init__(self, cache: ProxyCache, key: str, path: Path, **values: Any) -> None:
        # using it changes the file's time, which must not look like another file to a player
        headers = {**values.pop("headers"), "ETag": f'"{key}"'}
        super().__init__(path, headers=headers, **values)
        self._give_back = partial(cache.give_back, key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._give_back()


def _answer(
    handle: Callable[["Media", Request], Awaitable[Response]],
) -> Callable[["Media", Request], Awaitable[Response]]:
    """Turns what goes wrong into a sentence with the right number."""

    @wraps(handle)
    async def wrapper(self: "Media", request: Request) -> Response:
        try:
            return await handle(self, request)
        except _Refused as refused:
            status, text = refused.status, refused.text
        except VideoError as error:
            status, text = 422, str(error)
        except ScanonceError as error:
            status, text = 503, str(error)
        return PlainTextResponse(_shown(text), status_code=status, headers=_NEVER_KEPT)

    return wrapper


class Media:
    """The media of one index directory."""

    def __init__(self, layout: IndexLayout, cache: ProxyCache) -> None:
        """Nothing need be there yet."""
        self._layout = layout
        self._cache = cache
        self._thumbnails = ThumbnailStore(layout.thumbnails)
        self._catalog: Catalog | None = None
        self._lock = threading.Lock()
        self._frames: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="media")
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="frame")
        self._waiters = ThreadPoolExecutor(8, thread_name_prefix="clip-waiter")

    def routes(self) -> list[Route]:
        """The last one keeps like addresses from the pages; Streamlit's own are ``/media/NAME``."""
        return [
            Route("/media/videos/{id}", self.video),
            Route("/media/proxies/{id}", self.proxy),
            Route("/media/proxies/{id}/state", self.proxy_state),
            Route("/media/thumbs/{id}/{millis}.jpg", self.thumb),
            Route("/media/frames/{id}/{millis}.jpg", self.frame),
            Route("/media/clips/{id}/{start}-{end}.mp4", self.clip),
            Route("/media/clips/{id}/{start}-{end}.mp4/state", self.clip_state),
            Route("/media/{kind}/{rest:path}", self.unknown),
        ]

    def close(self) -> None:
        """Ends what is being done. The cache is closed by whoever made it."""
        for threads in (self._threads, self._decoders, self._waiters):
            threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            if self._catalog is not None:
                self._catalog.close()
                self._catalog = None

    # ------------------------------------------------ one method a route

    @_answer
    async def video(self, request: Request) -> Response:
        """The file as it is."""
        path, status = await self._in_thread(self._open, request)
        media_type = _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
        return FileResponse(path, stat_result=status, media_type=media_type, headers=_REVALIDATE)

    @_answer
    async def proxy(self, request: Request) -> Response:
        """The proxy, or 202 and how far it is; asking for it has it made."""
        video = await self._in_thread(self._find, request)
        key = _proxy_key(video)
        if await self._in_thread(self._cache.borrow, key) is None:
            make = partial(self._make_proxy, video)
            state = await self._in_thread(self._cache.start, key, make)
            if state.state != "ready":
                status = 422 if state.state == "failed" else 202
                return JSONResponse(
                    asdict(state), status, headers={**_NEVER_KEPT, "Retry-After": "1"}
                )
            if await self._in_thread(self._cache.borrow, key) is None:
                raise _Refused(503, "the proxy was deleted meanwhile: try again")
        return _CachedFile(
            self._cache, key, self._cache.path(key), media_type="video/mp4", headers=_REVALIDATE
        )

    @_answer
    async def proxy_state(self, request: Request) -> Response:
        """How far the proxy is."""
        video = await self._in_thread(self._find, request)
        state = await self._in_thread(self._cache.state, _proxy_key(video))
        return JSONResponse(asdict(state), headers=_NEVER_KEPT)

    @_answer
    async def thumb(self, request: Request) -> Response:
        """The stored picture, or the placeholder."""
        millis = _number(request, "millis")
        video = await self._in_thread(self._find, request, True)
        tag = f'"{video.uid}-{millis}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={**_KEPT_A_DAY, "ETag": tag})
        jpeg = await self._in_thread(self._thumbnail, video.uid, millis / 1000)
        if jpeg is None:  # there may be one after the next indexing
            return Response(placeholder(), media_type="image/jpeg", headers=_REVALIDATE)
        return Response(jpeg, media_type="image/jpeg", headers={**_KEPT_A_DAY, "ETag": tag})

    @_answer
    async def frame(self, request: Request) -> Response:
        """The frame shown at a time, decoded now."""
        millis = _number(request, "millis")
        video = await self._in_thread(self._find, request)
        if millis > 1000 * video.duration_seconds + 1000:
            raise _Refused(404, f"the video ends at {video.duration_seconds:.3f} s")
        tag = f'"{video.uid}-{millis}-{FRAME_WIDTH}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={**_KEPT_A_DAY, "ETag": tag})
        jpeg = await self._in_pool(self._decoders, self._decode_frame, video, millis)
        return Response(jpeg, media_type="image/jpeg", headers={**_KEPT_A_DAY, "ETag": tag})

    @_answer
    async def clip(self, request: Request) -> Response:
        """The exact cut, as a download."""
        video = await self._in_thread(self._find, request)
        start, end, key = _clip_of(request, video)
        if await self._in_thread(self._cache.borrow, key) is None:
            make = partial(self._make_clip, video, start, end)
            state = await self._in_pool(self._waiters, self._cache.wait, key, make)
            if state.state != "ready":
                raise _Refused(422, f"the clip could not be cut: {state.reason}")
            if await self._in_thread(self._cache.borrow, key) is None:
                raise _Refused(503, "the clip was deleted meanwhile: try again")
        name = f"{_stem(video.path)} {_name_time(start)}-{_name_time(end)}.mp4"
        headers = {**_NEVER_KEPT, "Content-Disposition": content_disposition(name)}
        return _CachedFile(
            self._cache, key, self._cache.path(key), media_type="video/mp4", headers=headers
        )

    @_answer
    async def clip_state(self, request: Request) -> Response:
        """How far the cut is; asking does not start it."""
        video = await self._in_thread(self._find, request)
        key = _clip_of(request, video)[2]
        state = await self._in_thread(self._cache.state, key)
        return JSONResponse(asdict(state), headers=_NEVER_KEPT)

    @_answer
    async def unknown(self, request: Request) -> Response:
        """Whatever else is asked for."""
        raise _Refused(404, "there is no such address")

    # ------------------------------------------------ what they do in threads

    async def _in_thread(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._in_pool(self._threads, do, *args, **kwargs)

    async def _in_pool(
        self, pool: ThreadPoolExecutor, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, partial(do, *args, **kwargs))

    def _find(self, request: Request, failed_too: bool = False) -> Video:
        video_id = _number(request, "id")
        found = self._opened_catalog().videos([video_id])
        if not found:
            raise _Refused(404, f"there is no video {video_id} in this library")
        if found[0].state == "failed" and not failed_too:
            raise _Refused(404, f"this video could not be read: {found[0].reason}")
        return found[0]

    def _open(self, request: Request) -> tuple[Path, os.stat_result]:
        try:
            path = find_file(self._find(request))
            with path.open("rb"):
                return path, path.stat()
        except OSError as error:
            raise _Refused(404, f"the file cannot be opened ({error.strerror})") from error
        except VideoError as error:
            raise _Refused(404, str(error)) from error

    def _opened_catalog(self) -> Catalog:
        with self._lock:
            layout = IndexLayout.of(self._layout.root)
            if layout != self._layout:  # another index has taken its place
                self._layout, self._thumbnails = layout, ThumbnailStore(layout.thumbnails)
                if self._catalog is not None:
                    self._catalog.close()
                    self._catalog = None
            if self._catalog is None:
                if not self._layout.catalog.exists():
                    raise _Refused(404, "nothing is indexed yet")
                self._catalog = Catalog.open(self._layout.catalog, read_only=True)
            return self._catalog

    def _thumbnail(self, uid: str, seconds: float) -> bytes | None:
        try:
            return self._thumbnails.read(uid, seconds)
        except IndexDirectoryError:  # a damaged picture costs that picture
            return None

    def _decode_frame(self, video: Video, millis: int) -> bytes:
        key = (video.uid, millis)
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        jpeg = frame_jpeg(_present(video), millis / 1000, FRAME_WIDTH)
        with self._lock:
            self._frames[key] = jpeg
            while len(self._frames) > _MAX_FRAMES:
                self._frames.popitem(last=False)
        return jpeg

    def _make_proxy(
        self, video: Video, out: Path, progress: Progress, cancel: threading.Event
    ) -> None:
        length = max(video.duration_seconds, 0.001)
        write_proxy(
            find_file(video),
            out,
            PROXY_HEIGHT,
            progress=lambda seconds: progress(seconds / length),
            cancel=cancel,
            max_bytes=self._cache.max_bytes,
        )

    def _make_clip(
        self, video: Video, start: int, end: int, out: Path, progress: Progress, cancel: Any
    ) -> None:
        length = (end - start) / 1000
        write_clip(
            find_file(video),
            Span(start / 1000, end / 1000),
            out,
            progress=lambda seconds: progress(seconds / length),
            cancel=cancel,
            max_bytes=self._cache.max_bytes,
        )


# ---------------------------------------------------------------- small things


@cache
def placeholder() -> bytes:
    """A small grey picture, for where none is stored: neither light nor dark."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (240, 135), (128, 130, 134))
    ImageDraw.Draw(image).polygon([(108, 50), (108, 85), (138, 67)], fill=(160, 162, 166))
    data = BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


def content_disposition(name: str) -> str:
    """The header of a download: the name in UTF-8 (RFC 5987), and a plain one for old programs.

    >>> content_disposition('caf\u00e9 "x".mp4')
    'attachment; filename="caf_ _x_.mp4"; filename*=UTF-8\\'\\'caf%C3%A9%20%22x%22.mp4'
    """
    stem, dot, ending = _shown(name).replace("/", "_").replace("\\", "_").rpartition(".")
    whole = f"{stem[:_MAX_NAME]}{dot}{ending}".strip(" .") or "clip.mp4"
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", whole)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(whole, safe='')}"


def _number(request: Request, name: str) -> int:
    """A number of an address; a 404 where it is none of ours, however long."""
    text: Mapping[str, str] = request.path_params
    if not re.fullmatch(r"[0-9]{1,15}", text[name], re.ASCII):
        raise _Refused(404, "there is no such address")
    return int(text[name])


def _clip_of(request: Request, video: Video) -> tuple[int, int, str]:
    """``(start, end, key)`` in milliseconds, checked."""
    start, end = _number(request, "start"), _number(request, "end")
    length = int(1000 * video.duration_seconds) + 1
    if not 0 <= start < end <= length:
        raise _Refused(
            400, f"a clip needs 0 <= start < end <= {length} ms; got {start} and {end} ms"
        )
    if end - start > 1000 * MAX_CLIP_SECONDS:
        raise _Refused(400, f"a clip has at most {MAX_CLIP_SECONDS / 60:.0f} minutes")
    return start, end, f"clip-{video.uid}-{start}-{end}"


def _proxy_key(video: Video) -> str:
    return f"proxy-{video.uid}-{PROXY_HEIGHT}"


def _present(video: Video) -> Path:
    try:
        return find_file(video)
    except VideoError as error:
        raise _Refused(404, str(error)) from error


def _stem(path: Path) -> str:
    return _shown(path.stem).strip()[:_MAX_NAME] or "clip"


def _name_time(millis: int) -> str:
    """61500 is 0h01m01.500: colons are not allowed in names everywhere."""
    seconds, rest = divmod(millis, 1000)
    return f"{seconds // 3600}h{seconds // 60 % 60:02}m{seconds % 60:02}.{rest:03}"


def _shown(text: str) -> str:
    """Without what cannot be encoded (names of files may be any bytes) and without control characters."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else " " for letter in clean)
