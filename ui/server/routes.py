"""The images, videos and clips of a library over HTTP. Addresses carry ids of the catalogue, never paths.

    GET /media/videos/7                    the file itself; HTTP ranges, so a player loads only what it shows
    GET /media/proxies/7                   a small copy that every browser plays; 202 while it is made
    GET /media/proxies/7/state             {"state": "making", "progress": 0.4, "reason": null}
    GET /media/thumbs/7/61500.jpg          the stored thumbnail at 61.5 s, or a grey placeholder
    GET /media/moments/7/61533-70000.json  up to 16 stored thumbnails of [61.533, 70) in one answer, base64
    GET /media/frames/7/61533.jpg          the frame shown at 61.533 s, decoded on request
    GET /media/clips/7/61533-70000.mp4     [61.533, 70) as a download; answered when it is cut
    GET /media/clips/7/61533-70000.mp4/state
    GET /media/selects/clips.zip           the clips of all selects, in their order
    GET /media/transcripts/7/said.srt      the lines of a track as a download; also .vtt and .txt

An id that is not in the catalogue, or whose file is offline, is a 404 with the reason. Blocking work
runs in threads, decoding in a guarded child process (`media.cut`).
"""

import asyncio
import base64
import os
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, partial, wraps
from io import BytesIO
from pathlib import Path
from threading import Event, Lock
from typing import ParamSpec, TypeVar, get_args
from urllib.parse import quote

import numpy as np
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from scanonce.media.cut import Progress, frame_jpeg, write_proxy
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, ScanonceError, VideoError
from scanonce.storage.files import make_folder
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import MadeTrack, TrackName, Video
from scanonce.storage.selects import Select, SelectsFile
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.ui.clip_files import MAX_NAME, clip_name, stem_of
from scanonce.ui.reports import unexpected
from scanonce.ui.safe_text import encodable, printable
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.clips import MAX_CLIP_SECONDS, Clip
from scanonce.ui.server.playback import find_file
from scanonce.ui.subtitles import TRANSCRIPT_FORMATS, TranscriptFormat

PROXY_HEIGHT = 480
FRAME_WIDTH = 480

P = ParamSpec("P")
T = TypeVar("T")

_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # browsers play these files, but some refuse video/quicktime
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
# a video with a script in it must do nothing even if a browser takes it for a page
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
}
_REVALIDATE = {**_SAFE, "Cache-Control": "private, no-cache"}
_NO_STORE = {**_SAFE, "Cache-Control": "private, no-store"}
_ONE_DAY = {**_SAFE, "Cache-Control": "private, max-age=86400"}
_MAX_FRAMES = 128  # decoded frames kept in memory: a few megabytes of JPEG
_MOMENT_THUMBNAILS = 16


class _Refused(Exception):
    """An answer other than the one that was asked for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _CachedFile(FileResponse):
    """An mp4 of the cache, kept there until it is sent."""

    def __init__(self, cache: ProxyCache, key: str, headers: Mapping[str, str]) -> None:
        # The default ETag contains the file's time, which changes with every use: a player would take the next range
        # for one of another file.
        headers = {**headers, "ETag": f'"{key}"'}
        super().__init__(cache.path(key), headers=headers, media_type="video/mp4")
        self._release = partial(cache.release, key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def _errors_as_text(
    handle: Callable[["Media", Request], Awaitable[Response]],
) -> Callable[["Media", Request], Awaitable[Response]]:
    """Answer an error with its message and the right status."""

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
        except Exception as error:
            status, text = 500, unexpected(error)
        return PlainTextResponse(printable(text), status_code=status, headers=_NO_STORE)

    return wrapper


class Media:
    """The media of one index directory."""

    def __init__(self, layout: IndexLayout, cache: ProxyCache) -> None:
        """The index need not exist yet."""
        self._layout = layout
        self._cache = cache
        self._thumbnails = ThumbnailStore(layout.thumbnails)
        self._catalog: Catalog | None = None
        self._lock = Lock()
        self._frames: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        # three pools: neither slow decoding nor waiting for a clip holds up a catalogue look-up
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="media")
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="frame")
        self._waiters = ThreadPoolExecutor(8, thread_name_prefix="clip-waiter")

    def routes(self) -> list[Route]:
        """Return the routes. The last one keeps other such addresses from the pages; Streamlit uses ``/media/NAME``."""
        return [
            Route("/media/videos/{id}", self.video),
            Route("/media/proxies/{id}", self.proxy),
            Route("/media/proxies/{id}/state", self.proxy_state),
            Route("/media/thumbs/{id}/{millis}.jpg", self.thumb),
            Route("/media/moments/{id}/{start}-{end}.json", self.moment),
            Route("/media/frames/{id}/{millis}.jpg", self.frame),
            Route("/media/selects/clips.zip", self.clips),
            Route("/media/clips/{id}/{start}-{end}.mp4", self.clip),
            Route("/media/clips/{id}/{start}-{end}.mp4/state", self.clip_state),
            Route("/media/transcripts/{id}/{track}.{format}", self.transcript),
            Route("/media/{kind}/{rest:path}", self.unknown),
        ]

    def close(self) -> None:
        """Cancel what is in progress. The cache is closed by its owner."""
        for threads in (self._threads, self._decoders, self._waiters):
            threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._close_catalog()

    # ------------------------------------------------ one method for each route

    @_errors_as_text
    async def video(self, request: Request) -> Response:
        """Send the file as it is."""
        path, status = await self._in_thread(self._open, request)
        media_type = _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
        return FileResponse(path, stat_result=status, media_type=media_type, headers=_REVALIDATE)

    @_errors_as_text
    async def proxy(self, request: Request) -> Response:
        """Send the proxy, or 202 and its progress; the first request starts making it."""
        video = await self._in_thread(self._find, request)
        key = _proxy_key(video)
        make = partial(self._make_proxy, video)
        state = await self._in_thread(self._cache.start, key, make)
        if state.state != "ready":
            status = 422 if state.state == "failed" else 202
            return JSONResponse(asdict(state), status, headers={**_NO_STORE, "Retry-After": "1"})
        return await self._cached_file(key, _REVALIDATE)

    @_errors_as_text
    async def proxy_state(self, request: Request) -> Response:
        """Send the progress of the proxy; does not start it."""
        video = await self._in_thread(self._find, request)
        state = await self._in_thread(self._cache.state, _proxy_key(video))
        return JSONResponse(asdict(state), headers=_NO_STORE)

    @_errors_as_text
    async def thumb(self, request: Request) -> Response:
        """Send the stored thumbnail, or the placeholder."""
        millis = _number(request, "millis")
        video = await self._in_thread(self._find, request, True)
        tag = f'"{video.uid}-{millis}"'
        if request.headers.get("if-none-match") == tag:
            return _not_modified(tag)
        jpeg = await self._in_thread(self._thumbnail, video.uid, millis / 1000)
        if jpeg is None:  # the next indexing may store one
            return Response(placeholder(), media_type="image/jpeg", headers=_REVALIDATE)
        return _jpeg(jpeg, tag)

    @_errors_as_text
    async def moment(self, request: Request) -> Response:
        """Send stored thumbnails of a span, spread evenly: ``{"images": [base64 of a JPEG file, ...]}``."""
        video = await self._in_thread(self._find, request, True)
        start, end = _number(request, "start"), _number(request, "end")
        if not start < end:
            raise _Refused(400, f"a moment starts before it ends; got {start} and {end} ms")
        images = await self._in_thread(self._moment_thumbnails, video.uid, start, end)
        return JSONResponse({"images": images}, headers=_ONE_DAY if images else _REVALIDATE)

    @_errors_as_text
    async def clips(self, _: Request) -> Response:
        """Cut the clips of all selects and send them as one file."""
        path = await self._in_pool(self._waiters, self._zip_clips)
        name = content_disposition("selects.zip")
        return FileResponse(
            path,
            media_type="application/zip",
            headers={**_NO_STORE, "Content-Disposition": name},
            background=BackgroundTask(path.unlink, missing_ok=True),
        )

    @_errors_as_text
    async def frame(self, request: Request) -> Response:
        """Decode and send the frame shown at a time."""
        millis = _number(request, "millis")
        video = await self._in_thread(self._find, request)
        if millis > 1000 * video.duration_seconds + 1000:
            raise _Refused(404, f"the video ends at {video.duration_seconds:.3f} s")
        tag = f'"{video.uid}-{millis}-{FRAME_WIDTH}"'
        if request.headers.get("if-none-match") == tag:
            return _not_modified(tag)
        return _jpeg(await self._in_pool(self._decoders, self._decode_frame, video, millis), tag)

    @_errors_as_text
    async def clip(self, request: Request) -> Response:
        """Send the exact cut as a download."""
        video = await self._in_thread(self._find, request)
        clip = _clip_of(request, video)
        make = clip.maker(self._cache)
        state = await self._in_thread(self._cache.start, clip.key, make, queue="clip")
        if state.state == "making":
            state = await self._in_pool(self._waiters, self._cache.wait, clip.key, make)
        if state.state != "ready":
            raise _Refused(422, f"the clip could not be cut: {state.reason}")
        name = clip_name(video.path, clip.span)
        headers = {**_NO_STORE, "Content-Disposition": content_disposition(name)}
        return await self._cached_file(clip.key, headers)

    @_errors_as_text
    async def clip_state(self, request: Request) -> Response:
        """Send the progress of the cut; does not start it."""
        video = await self._in_thread(self._find, request)
        state = await self._in_thread(self._cache.state, _clip_of(request, video).key)
        return JSONResponse(asdict(state), headers=_NO_STORE)

    @_errors_as_text
    async def transcript(self, request: Request) -> Response:
        """Send the lines of a track as a file."""
        video = await self._in_thread(self._find, request)
        track, kind = _transcript_of(request)
        text = await self._in_thread(self._transcript, video, track, kind)
        headers = {
            **_NO_STORE,
            "Content-Disposition": content_disposition(f"{stem_of(video.path)} {track}.{kind}"),
        }
        return PlainTextResponse(encodable(text), headers=headers)

    @_errors_as_text
    async def unknown(self, request: Request) -> Response:
        """Refuse any other address."""
        raise _Refused(404, "there is no such address")

    # ------------------------------------------------ their work in threads

    async def _in_thread(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._in_pool(self._threads, do, *args, **kwargs)

    async def _in_pool(
        self, pool: ThreadPoolExecutor, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, partial(do, *args, **kwargs))

    async def _cached_file(self, key: str, headers: Mapping[str, str]) -> Response:
        if await self._in_thread(self._cache.acquire, key) is None:
            raise _Refused(503, "the file was deleted meanwhile: try again")
        return _CachedFile(self._cache, key, headers)

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
            if layout != self._layout:  # a reindex or a restore has switched to another index
                self._layout, self._thumbnails = layout, ThumbnailStore(layout.thumbnails)
                self._close_catalog()
            if self._catalog is None:
                if not self._layout.catalog.exists():
                    raise _Refused(404, "nothing is indexed yet")
                self._catalog = Catalog.open(self._layout.catalog, read_only=True)
            return self._catalog

    def _close_catalog(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _thumbnail(self, uid: str, seconds: float) -> bytes | None:
        try:
            return self._thumbnails.read(uid, seconds)
        except IndexDirectoryError:  # a damaged thumbnail must not break the page
            return None

    def _moment_thumbnails(self, uid: str, start: int, end: int) -> list[str]:
        times = np.linspace(start, end, _MOMENT_THUMBNAILS, endpoint=False) / 1000
        # two times may have the same thumbnail: there is about one a second
        found = dict.fromkeys(self._thumbnail(uid, seconds) for seconds in times.tolist())
        return [base64.b64encode(jpeg).decode() for jpeg in found if jpeg is not None]

    def _zip_clips(self) -> Path:
        """Write the clips of all selects to a temporary file, and return its path."""
        catalog = self._opened_catalog()
        kept = SelectsFile(self._layout).read()
        videos = {
            video.video_id: video for video in catalog.videos({each.video_id for each in kept})
        }
        chosen = [(each, videos[each.video_id]) for each in kept if each.video_id in videos]
        if not chosen:
            raise _Refused(404, "nothing is picked")
        make_folder(self._cache.folder)
        handle, path = tempfile.mkstemp(prefix=".tmp-", suffix=".zip", dir=self._cache.folder)
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
                for number, (select, video) in enumerate(chosen, 1):
                    self._add_clip(archive, number, select, video)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return Path(path)

    def _add_clip(
        self, archive: zipfile.ZipFile, number: int, select: Select, video: Video
    ) -> None:
        clip = _checked_clip(video, *select.span.millis)
        name = clip_name(Path(select.name.replace("/", "_") + ".mp4"), clip.span)
        state = self._cache.wait(clip.key, clip.maker(self._cache))
        path = self._cache.acquire(clip.key)
        if path is None:
            raise _Refused(422, f"the clip of {select.name} could not be cut: {state.reason}")
        try:
            archive.write(path, f"{number:02} {name}")
        finally:
            self._cache.release(clip.key)

    def _decode_frame(self, video: Video, millis: int) -> bytes:
        key = (video.uid, millis)
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        try:
            path = find_file(video)
        except VideoError as error:
            raise _Refused(404, str(error)) from error
        jpeg = frame_jpeg(path, millis / 1000, FRAME_WIDTH)
        with self._lock:
            self._frames[key] = jpeg
            while len(self._frames) > _MAX_FRAMES:
                self._frames.popitem(last=False)
        return jpeg

    def _transcript(self, video: Video, track: TrackName, kind: TranscriptFormat) -> str:
        lines = self._opened_catalog().lines.of(video.video_id, [track])
        if not lines:
            raise _Refused(
                404, f"this video has no line that is {track}: scanonce tracks add {track}"
            )
        return TRANSCRIPT_FORMATS[kind](lines, video.info.offset_seconds if video.info else 0.0)

    def _make_proxy(self, video: Video, out: Path, progress: Progress, cancel: Event) -> None:
        length = max(video.duration_seconds, 0.001)
        write_proxy(
            find_file(video),
            out,
            PROXY_HEIGHT,
            end_seconds=length,  # what is not indexed is not worth hours of encoding
            progress=lambda seconds: progress(seconds / length),
            cancel=cancel,
            max_bytes=self._cache.max_bytes,
        )


# ---------------------------------------------------------------- answers


@cache
def placeholder() -> bytes:
    """Return a small grey JPEG, neither light nor dark, for times without a thumbnail."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (240, 135), (128, 130, 134))
    ImageDraw.Draw(image).polygon([(108, 50), (108, 85), (138, 67)], fill=(160, 162, 166))
    data = BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


def content_disposition(name: str) -> str:
    """Return the header of a download: the name in UTF-8 (RFC 5987), and in ASCII for old programs.

    Starlette's `FileResponse(filename=)` writes one of the two only.

    >>> content_disposition('caf\u00e9 "x".mp4')
    'attachment; filename="caf_ _x_.mp4"; filename*=UTF-8\\'\\'caf%C3%A9%20%22x%22.mp4'
    """
    stem, dot, ending = printable(name).replace("/", "_").replace("\\", "_").rpartition(".")
    whole = f"{stem[:MAX_NAME]}{dot}{ending}".strip(" .") or "clip.mp4"
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", whole)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(whole, safe='')}"


def _jpeg(jpeg: bytes, tag: str) -> Response:
    return Response(jpeg, media_type="image/jpeg", headers={**_ONE_DAY, "ETag": tag})


def _not_modified(tag: str) -> Response:
    return Response(status_code=304, headers={**_ONE_DAY, "ETag": tag})


# ---------------------------------------------------------------- addresses, keys and names


def _number(request: Request, name: str) -> int:
    """Return a number of an address, whatever its length; anything else is a 404."""
    text: Mapping[str, str] = request.path_params
    if not re.fullmatch(r"[0-9]{1,15}", text[name], re.ASCII):
        raise _Refused(404, "there is no such address")
    return int(text[name])


def _clip_of(request: Request, video: Video) -> Clip:
    """Return the clip of an address, checked."""
    return _checked_clip(video, _number(request, "start"), _number(request, "end"))


def _checked_clip(video: Video, start: int, end: int) -> Clip:
    """Return a clip, given in milliseconds; refuses one that is outside or too long."""
    length = int(1000 * video.duration_seconds) + 1
    if not 0 <= start < end <= length:
        raise _Refused(
            400, f"a clip needs 0 <= start < end <= {length} ms; got {start} and {end} ms"
        )
    if end - start > 1000 * MAX_CLIP_SECONDS:
        raise _Refused(400, f"a clip has at most {MAX_CLIP_SECONDS / 60:.0f} minutes")
    return Clip(video, start, end)


def _transcript_of(request: Request) -> tuple[MadeTrack, TranscriptFormat]:
    """Return the track and the format of a transcript; anything else is a 404."""
    asked = request.path_params
    track = next((name for name in get_args(MadeTrack) if name == asked["track"]), None)
    kind = next((name for name in TRANSCRIPT_FORMATS if name == asked["format"]), None)
    if track is None or kind is None:
        raise _Refused(404, "there is no such address")
    return track, kind


def _proxy_key(video: Video) -> str:
    return f"proxy-{video.uid}-{PROXY_HEIGHT}"
