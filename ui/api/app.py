"""The HTTP API as an application of FastAPI: addresses, scopes and statuses over the functions of `ui.service`.

    api = build_api(service, cache, Tokens(index_dir), settings)          # an ASGI application

A search is answered in its own request. Blocking work runs in lanes (`ui.api.limits`): neither cutting nor a slow file
holds up a search. Each request names a token; without the scope that its address needs it gets 403.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from scanonce.search.examples import MAX_EXAMPLES, Example
from scanonce.search.filters import Filter
from scanonce.storage.errors import (
    ConfigError,
    EncoderError,
    IndexDirectoryError,
    LocaliserError,
    NoSuchVideo,
    QueryError,
    ScanonceError,
    VideoError,
)
from scanonce.storage.records import TrackName
from scanonce.ui.api import schemas
from scanonce.ui.api.access import TokenGuard, needs
from scanonce.ui.api.docs_page import docs_page
from scanonce.ui.api.limits import BodyTime, Lane, TooBusy, TooSlow
from scanonce.ui.api.tokens import Scope, Tokens
from scanonce.ui.clip_files import clip_name
from scanonce.ui.door_json import (
    answer_json,
    curve_json,
    line_json,
    run_json,
    saved_json,
    videos_json,
)
from scanonce.ui.reports import unexpected
from scanonce.ui.safe_text import json_line
from scanonce.ui.selects_json import selects_json
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.routes import content_disposition
from scanonce.ui.server.settings import ServeSettings
from scanonce.ui.service import Service, span_of

PREFIX = "/api/v1"

_MAX_BODY = 1 << 20
_CLIP_SECONDS = 600.0
_PROGRESS_SECONDS = 0.5
_MOST_FOLLOWERS = 100
_HEADERS = {"Cache-Control": "private, no-store"}
_MEDIA_TYPES = {
    "csv": "text/csv",
    "edl": "text/plain",
    "otio": "application/json",
    "srt": "application/x-subrip",
    "zip": "application/zip",
    "fcpxml": "application/xml",
    "xml": "application/xml",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": meaning}
    for status, meaning in {
        400: "The request cannot be read",
        401: "The token is missing, wrong or revoked",
        403: "The token has not the scope that this needs",
        404: "There is no such video or name",
        408: "The body came too slowly",
        409: "Something else is in the way, such as a run of the indexer",
        413: "The body is too long",
        422: "A value is not allowed",
        429: "Too much is asked at once",
        503: "The index cannot be used now",
    }.items()
}


class Json(Response):
    """JSON of any text: names of files may be any bytes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json_line(content).encode()


class Api:
    """The functions behind the addresses."""

    def __init__(
        self, service: Service, cache: ProxyCache, tokens: Tokens, settings: ServeSettings
    ) -> None:
        self._service, self._cache, self._tokens = service, cache, tokens
        seconds = settings.answer_seconds
        self._searches = Lane(
            "api-search",
            settings.parallel_searches,
            waiting=settings.waiting_searches,
            seconds=seconds,
        )
        # examples are decoded first, and reading must not wait for that
        self._examples = Lane("api-example", 2, waiting=8, seconds=4 * seconds)
        self._reads = Lane("api-read", 8, waiting=256, seconds=seconds)
        self._clips = Lane("api-clip", 8, waiting=32, seconds=_CLIP_SECONDS)
        self._lanes = (self._searches, self._examples, self._reads, self._clips)
        self._followers = 0

    def close(self) -> None:
        """Drop what waits."""
        for lane in self._lanes:
            lane.close()

    # ------------------------------------------------ finding

    async def search(self, asked: schemas.SearchRequest) -> Response:
        """Find the moments that a text describes, by their images and their words."""
        only = asked.filter.filter()
        answered = await self._searches.run(
            self._service.search, asked.text, top=asked.top, only=only
        )
        return Json(answer_json(answered))

    async def search_by_example(
        self,
        files: Annotated[
            list[UploadFile],
            File(description="Images or clips.", min_length=1, max_length=MAX_EXAMPLES),
        ],
        text: Annotated[str, Form(max_length=2_000)] = "",
        top: Annotated[int | None, Form(ge=1, le=1000)] = None,
        filter: Annotated[str, Form(max_length=100_000, description="A filter, as JSON.")] = "{}",
    ) -> Response:
        """Find the moments that look like images or clips, and fit a text if there is one."""
        only = _filter_of(filter)
        with ExitStack() as temporary:
            examples = [await self._saved(each, temporary) for each in files]
            answered = await self._examples.run(
                self._service.search, text, examples=examples, top=top, only=only
            )
        return Json(answer_json(answered))

    async def _saved(self, given: UploadFile, temporary: ExitStack) -> Example:
        folder = temporary.enter_context(tempfile.TemporaryDirectory(prefix="scanonce-upload-"))
        path = Path(folder) / "example"  # its own name may be anything
        with path.open("wb") as file:
            while block := await given.read(1 << 20):
                file.write(block)
        return Example(path, name=(given.filename or "example")[:200])

    async def similar(self, asked: schemas.SimilarRequest) -> Response:
        """Find moments that look like a span of a video of the library."""
        answered = await self._searches.run(
            self._service.similar,
            asked.video_id,
            asked.span(),
            top=asked.top,
            only=asked.filter.filter(),
        )
        return Json(answer_json(answered))

    async def curve(self, video_id: schemas.Id, text: schemas.Text) -> Response:
        """Score each piece of a video with a text."""
        return Json(curve_json(await self._searches.run(self._service.curve, text, video_id)))

    # ------------------------------------------------ videos

    async def videos(
        self,
        name: Annotated[str, Query(max_length=500, description="A part of the path.")] = "",
        after: Annotated[
            int, Query(ge=0, lt=1 << 43, description="Last id of the page before.")
        ] = 0,
        count: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """List the videos that can be searched."""
        videos, labels = await self._reads.run(self._service.videos, name, after=after, count=count)
        return Json(videos_json(videos, labels, count))

    async def lines(
        self, video_id: schemas.Id, track: Annotated[list[TrackName] | None, Query()] = None
    ) -> Response:
        """Return the transcript of a video: its spoken and written lines, by time."""
        lines = await self._reads.run(self._service.lines, video_id, track)
        return Json({"lines": [line_json(line) for line in lines]})

    async def thumbnail(self, video_id: schemas.Id, seconds: schemas.Seconds = 0.0) -> Response:
        """Return the stored picture at a time."""
        jpeg = await self._reads.run(self._service.thumbnail, video_id, seconds)
        if jpeg is None:
            raise HTTPException(404, "this video has no stored picture")
        return Response(jpeg, media_type="image/jpeg", headers=_HEADERS)

    async def clip(
        self, video_id: schemas.Id, start_seconds: schemas.Seconds, end_seconds: schemas.Seconds
    ) -> Response:
        """Return an exact cut, with its sound; the answer waits until it is cut."""
        span = span_of(start_seconds, end_seconds)
        key, source = await self._clips.run(self._service.clip, video_id, span)
        path = self._cache.acquire(key)
        if path is None:
            raise HTTPException(409, "the clip was deleted meanwhile: ask again")
        return _Clip(path, partial(self._cache.release, key), clip_name(source, span))

    async def export(self, asked: schemas.ExportRequest) -> Response:
        """Return moments as an edit list, timeline, table or subtitles."""
        chosen = [each.chosen() for each in asked.moments]
        name, content = await self._reads.run(
            self._service.export, asked.kind, chosen, rate=asked.rate
        )
        return self._file(name, content)

    def _file(self, name: str, content: bytes) -> Response:
        headers = {**_HEADERS, "Content-Disposition": content_disposition(name)}
        media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=media_type, headers=headers)

    # ------------------------------------------------ selects

    async def selects(self) -> Response:
        """List the selects, in the order of the cut."""
        return Json(selects_json(await self._reads.run(self._service.selects)))

    async def select(self, asked: schemas.SelectRequest) -> Response:
        """Add moments at the end of the selects."""
        chosen = [each.chosen() for each in asked.moments]
        return Json(selects_json(await self._reads.run(self._service.select, chosen)))

    async def unselect(self, key: schemas.Name) -> Response:
        """Remove a select by its key."""
        return Json(selects_json(await self._reads.run(self._service.unselect, key)))

    async def export_selects(self, asked: schemas.ExportSelectsRequest) -> Response:
        """Return the selects as an edit list, timeline, markers, table or subtitles."""
        found = await self._reads.run(self._service.export_selects, asked.kind, asked.rate)
        return self._file(*found)

    # ------------------------------------------------ labels and saved searches

    async def labels(self) -> Response:
        """Count the videos by label."""
        return Json({"labels": await self._reads.run(self._service.labels)})

    async def change_labels(self, asked: schemas.LabelsRequest) -> Response:
        """Add labels to videos, and remove labels from them."""
        added, removed = await self._reads.run(
            self._service.change_labels, asked.video_ids, add=asked.add, remove=asked.remove
        )
        return Json({"added": added, "removed": removed})

    async def saved(self) -> Response:
        """List the saved searches, with the number of new matches of each."""
        saved = self._service.library.saved

        def listed() -> list[dict[str, Any]]:
            return [saved_json(each, *saved.count_new(each)) for each in saved.all()]

        return Json({"saved": await self._searches.run(listed)})

    async def save(self, asked: schemas.SavedRequest) -> Response:
        """Keep a search under a name."""
        saved, only = self._service.library.saved, asked.filter.filter()

        def added() -> dict[str, Any]:
            made = saved.add(asked.name, asked.text, only)
            return saved_json(made, *saved.count_new(made))

        return Json(await self._searches.run(added), status_code=201)

    async def run_saved(self, name: schemas.Name, top: schemas.Top | None = None) -> Response:
        """Answer a saved search, and note that it was looked at."""
        return Json(answer_json(await self._searches.run(self._service.run_saved, name, top)))

    async def remove_saved(self, name: schemas.Name) -> Response:
        """Remove a saved search."""
        await self._reads.run(self._service.library.saved.remove, name)
        return Response(status_code=204)

    # ------------------------------------------------ indexing

    async def run(self) -> Response:
        """Return the current run of the indexer, or the last one."""
        return Json(run_json(await self._reads.run(self._service.run)))

    async def start_run(self, asked: schemas.RunRequest) -> Response:
        """Start to index folders; it goes on when the connection ends."""
        with _conflicts():
            job = await self._reads.run(self._service.start_run, asked.folders, retry=asked.retry)
        return Json(run_json(job), status_code=202)

    async def stop_run(self) -> Response:
        """Stop the run; videos indexed so far are kept."""
        with _conflicts():
            job = await self._reads.run(self._service.stop_run)
        return Json(run_json(job), status_code=202)

    async def progress(self) -> Response:
        """Follow the run as server-sent events, the last one when it has ended; the data of each is the state."""
        if self._followers >= _MOST_FOLLOWERS:
            raise TooBusy
        return StreamingResponse(self._events(), media_type="text/event-stream", headers=_HEADERS)

    async def _events(self) -> AsyncIterator[bytes]:
        self._followers += 1
        try:
            before = None
            while True:
                job = await self._reads.run(self._service.run)
                state = json_line(run_json(job))
                if state != before:
                    yield f"event: run\ndata: {state}\n\n".encode()
                    before = state
                if job is None or not job.alive:
                    return
                await asyncio.sleep(_PROGRESS_SECONDS)
        finally:
            self._followers -= 1


class _Clip(FileResponse):
    """A clip of the cache, kept there until it is sent."""

    def __init__(self, path: Path, release: Callable[[], object], name: str) -> None:
        headers = {**_HEADERS, "Content-Disposition": content_disposition(name)}
        super().__init__(path, headers=headers, media_type="video/mp4")
        self._release = release

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


@contextmanager
def _conflicts() -> Iterator[None]:
    """Answer that a run is at work, or none, with 409: nothing is wrong with the index."""
    try:
        yield
    except IndexDirectoryError as error:
        raise HTTPException(409, str(error)) from error


def _filter_of(text: str) -> Filter:
    try:
        return schemas.FilterRequest.model_validate_json(text).filter()
    except ValidationError as error:
        raise QueryError(f"this is no filter: {_first_problem(error.errors())}") from error


# ---------------------------------------------------------------- the application


def build_api(
    service: Service, cache: ProxyCache, tokens: Tokens, settings: ServeSettings
) -> tuple[ASGIApp, Api]:
    """Return the application, and the functions behind it, which its owner closes."""
    api = Api(service, cache, tokens, settings)
    app = FastAPI(
        title="Scanonce",
        version="1",
        description="Search a library of videos by text, images and clips.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # the pages of FastAPI load their scripts from other hosts
        redoc_url=None,
        max_body_size=_MAX_BODY,
    )
    _add_addresses(app, api, settings.upload_mb * 1_000_000)
    _add_errors(app)

    @app.get(f"{PREFIX}/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    open_to_all = frozenset({f"{PREFIX}/docs", f"{PREFIX}/openapi.json"})
    return TokenGuard(BodyTime(app), tokens, open_to_all), api


def _add_addresses(app: FastAPI, api: Api, upload_bytes: int) -> None:
    """Connect each address with its function, the scope it needs, and what it answers."""

    def add(
        method: str,
        path: str,
        do: Callable[..., Any],
        scope: Scope,
        model: Any = None,
        *,
        status: int = 200,
        content: str = "",
        max_body: int | None = None,
    ) -> None:
        answers = dict(_REFUSALS)
        if content:
            answers[status] = {"content": {content: {}}, "description": "The file"}
        app.add_api_route(
            PREFIX + path,
            do,
            methods=[method],
            response_model=model,
            status_code=status,
            responses=answers,
            response_class=Response if content or status == 204 else Json,
            dependencies=[Depends(needs(scope))],
            max_body_size=max_body,
            tags=[scope],
            summary=(do.__doc__ or "").partition(".")[0],
        )

    add("POST", "/search", api.search, "read", schemas.AnswerOut)
    add(
        *("POST", "/search/by-example", api.search_by_example, "read", schemas.AnswerOut),
        max_body=upload_bytes,
    )
    add("POST", "/similar", api.similar, "read", schemas.AnswerOut)
    add("GET", "/videos", api.videos, "read", schemas.VideosOut)
    add("GET", "/videos/{video_id}/curve", api.curve, "read", schemas.CurveOut)
    add("GET", "/videos/{video_id}/lines", api.lines, "read", schemas.LinesOut)
    add("GET", "/videos/{video_id}/thumbnail", api.thumbnail, "read", content="image/jpeg")
    add("GET", "/videos/{video_id}/clip", api.clip, "export", content="video/mp4")
    add("POST", "/export", api.export, "export", content="text/plain")
    add("GET", "/selects", api.selects, "read", schemas.SelectsOut)
    add("POST", "/selects", api.select, "write", schemas.SelectsOut)
    add("DELETE", "/selects/{key}", api.unselect, "write", schemas.SelectsOut)
    add("POST", "/selects/export", api.export_selects, "export", content="text/plain")
    add("GET", "/labels", api.labels, "read", schemas.LabelsOut)
    add("POST", "/labels", api.change_labels, "write", schemas.LabelledOut)
    add("GET", "/saved", api.saved, "read", schemas.SavedOut)
    add("POST", "/saved", api.save, "write", schemas.SavedSearchOut, status=201)
    add("POST", "/saved/{name:path}/run", api.run_saved, "write", schemas.AnswerOut)
    add("DELETE", "/saved/{name:path}", api.remove_saved, "write", status=204)
    add("GET", "/index", api.run, "read", schemas.RunOut)
    add("POST", "/index", api.start_run, "write", schemas.RunOut, status=202)
    add("POST", "/index/stop", api.stop_run, "write", schemas.RunOut, status=202)
    add("GET", "/index/progress", api.progress, "read", content="text/event-stream")


def _add_errors(app: FastAPI) -> None:
    """Answer each error with its sentence and its status."""

    def problem(status: int, text: str, headers: Any = None) -> Response:
        return Json({"error": text}, status, {**_HEADERS, **(headers or {})})

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, _first_problem(error.errors()))

    @app.exception_handler(TooBusy)
    async def busy(_: Request, __: Exception) -> Response:
        return problem(
            429, "too much is asked at once: try again in a moment", {"Retry-After": "1"}
        )

    @app.exception_handler(TooSlow)
    async def slow(_: Request, __: Exception) -> Response:
        return problem(503, "the answer took too long: try again", {"Retry-After": "5"})

    @app.exception_handler(ScanonceError)
    async def known(_: Request, error: Exception) -> Response:
        return problem(_status_of(error), str(error))

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> Response:
        return problem(500, unexpected(error))


def _status_of(error: Exception) -> int:
    if isinstance(error, NoSuchVideo):
        return 404
    if isinstance(error, QueryError | VideoError | ConfigError):
        return 422
    if isinstance(error, IndexDirectoryError | EncoderError | LocaliserError):
        return 503
    return 500


def _first_problem(problems: Sequence[Any]) -> str:
    """Return the first problem of a request that does not fit the schema."""
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    given = first.get("input")
    shown = "" if isinstance(given, dict | list | bytes | None) else f"; got {str(given)[:80]!r}"
    return f"{where or 'the request'}: {first['msg']}{shown}"
