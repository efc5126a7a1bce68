"""The library for assistants, over the Model Context Protocol: search, look, read, list, cut.

    build_mcp(service).run("stdio")                    # `scanonce mcp`
    app = mcp_app(build_mcp(service), tokens, ...)     # `scanonce mcp --http`: an ASGI application

The tools are the functions of `ui.service` and answer with the same JSON as the other doors.
"""

import base64
from collections.abc import Callable
from datetime import date
from functools import wraps
from pathlib import Path
from shutil import copyfile
from typing import Annotated, Any, ParamSpec, TypeVar

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    BlobResourceContents,
    ContentBlock,
    EmbeddedResource,
    TextContent,
    ToolAnnotations,
)
from pydantic import Field
from starlette.types import ASGIApp

from scanonce.search.filters import Filter
from scanonce.storage.errors import ScanonceError
from scanonce.storage.records import Span, TrackName
from scanonce.ui.api.access import TokenGuard
from scanonce.ui.api.tokens import Tokens
from scanonce.ui.clip_files import clip_name
from scanonce.ui.door_json import answer_json, line_json, videos_json
from scanonce.ui.safe_text import encodable, json_line
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.guard import AccessGuard
from scanonce.ui.service import Service, span_of
from scanonce.ui.views import clock, times_across

MOST_PICTURES = 8
_MOST_LINES = 500
_MOST_CLIP_BYTES = 16 << 20
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_CUTS = ToolAnnotations(open_world_hint=False)
_TEXT = 'Description of the moment: "a red car at night". Operators: "a & b", "a | b", "a -b", "a then b within 10s".'
_INSTRUCTIONS = (
    "Scanonce finds moments in a library of videos by their images, speech and text. Search first; then look at the "
    "pictures of a moment before you trust it: its probability is an estimate. Times are seconds from the first frame."
)

Seconds = Annotated[float, Field(ge=0, description="Seconds from the first frame.")]
VideoId = Annotated[int, Field(ge=0, lt=1 << 43, description="Id of a video, from an answer.")]

P = ParamSpec("P")
T = TypeVar("T")


def _explained(do: Callable[P, T]) -> Callable[P, T]:
    """Give the reason of an error to the assistant."""

    @wraps(do)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return do(*args, **kwargs)
        except ScanonceError as error:
            raise ToolError(encodable(str(error))) from error

    return wrapper


class Tools:
    """The tools. Their docstrings and parameters are the description that assistants read."""

    def __init__(self, service: Service, cache: ProxyCache, clips: Path | None) -> None:
        """See `build_mcp`."""
        self._service, self._cache, self._clips = service, cache, clips

    @_explained
    def search(
        self,
        text: Annotated[str, Field(max_length=2000, description=_TEXT)],
        top: Annotated[int, Field(ge=1, le=100)] = 10,
        labels: Annotated[
            tuple[str, ...], Field(description="Only videos with all of these.")
        ] = (),
        folder: Annotated[str, Field(description="Only videos at or below this folder.")] = "",
        recorded_after: Annotated[date | None, Field(description="First day.")] = None,
        recorded_before: Annotated[date | None, Field(description="Last day.")] = None,
        camera: Annotated[str | None, Field(description="Make and model contain this.")] = None,
        near: Annotated[
            tuple[float, float, float] | None,
            Field(description="Recorded near: latitude, longitude, greatest distance in km."),
        ] = None,
    ) -> dict[str, Any]:
        """Find moments in the videos, best first."""
        folders = (Path(folder.replace("\0", "")),) if folder else ()
        only = Filter(
            labels=frozenset(labels),
            folders=folders,
            recorded_after=recorded_after,
            recorded_before=recorded_before,
            camera=camera,
            near=near,
        )
        return answer_json(self._service.search(text, top=top, only=only))

    @_explained
    def look(
        self,
        video_id: VideoId,
        start_seconds: Seconds,
        end_seconds: Seconds,
        count: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 3,
    ) -> list[Any]:
        """Look at pictures spread over a moment."""
        shown: list[Any] = []
        for seconds in times_across(span_of(start_seconds, end_seconds), count):
            jpeg = self._service.thumbnail(video_id, seconds)
            if jpeg is not None:
                shown += [f"at {clock(seconds, tenths=True)}", Image(data=jpeg, format="jpeg")]
        return shown or ["this video has no stored pictures"]

    @_explained
    def transcript(
        self,
        video_id: VideoId,
        start_seconds: Seconds = 0.0,
        end_seconds: Seconds = 1e9,
        tracks: list[TrackName] | None = None,
    ) -> dict[str, Any]:
        """Read the spoken and written lines of a video, or of a part of it; 500 at most."""
        span = span_of(start_seconds, end_seconds)
        lines = [
            line for line in self._service.lines(video_id, tracks) if _overlap(line.span, span)
        ]
        return {"lines": [line_json(line) for line in lines[:_MOST_LINES]], "num_lines": len(lines)}

    @_explained
    def videos(
        self,
        name: Annotated[str, Field(description="A part of the path.")] = "",
        after: Annotated[int, Field(ge=0, description="Last id of the page before.")] = 0,
        count: Annotated[int, Field(ge=1, le=200)] = 50,
    ) -> dict[str, Any]:
        """List the videos that can be searched."""
        found, labels = self._service.videos(name, after=after, count=count)
        return videos_json(found, labels, count)

    @_explained
    def cut(
        self, video_id: VideoId, start_seconds: Seconds, end_seconds: Seconds
    ) -> list[ContentBlock]:
        """Cut a clip, exact to the frame, with its sound."""
        span = span_of(start_seconds, end_seconds)
        key, source = self._service.clip(video_id, span)
        path = self._cache.acquire(key)
        if path is None:
            raise ToolError("the clip was deleted meanwhile: ask again")
        try:
            return _clip(path, clip_name(source, span), self._clips)
        finally:
            self._cache.release(key)


def build_mcp(service: Service, cache: ProxyCache, clips: Path | None = None) -> MCPServer[Any]:
    """Return the server.

    Args:
        service: the library.
        cache: keeps the clips that are cut.
        clips: folder in which clips are also saved; only whoever starts the server names it. None: nowhere.
    """
    server: MCPServer[Any] = MCPServer("scanonce", instructions=_INSTRUCTIONS)
    tools = Tools(service, cache, clips)
    for tool in (tools.search, tools.transcript, tools.videos):
        server.add_tool(tool, annotations=_READS, structured_output=True)
    server.add_tool(tools.look, annotations=_READS, structured_output=False)
    server.add_tool(tools.cut, annotations=_CUTS, structured_output=False)
    return server


def mcp_app(
    server: MCPServer[Any],
    tokens: Tokens,
    *,
    host: str,
    names: frozenset[str] | None,
) -> ASGIApp:
    """Return the server over HTTP, at ``/mcp``: for names of this machine, and tokens that may read and export."""
    app = server.streamable_http_app(stateless_http=True, json_response=True, host=host)
    guarded = TokenGuard(app, tokens, frozenset(), needed=("read", "export"))
    return AccessGuard(guarded, names=names, token=None, cookie="", with_own_tokens="/")


def _clip(path: Path, name: str, folder: Path | None) -> list[ContentBlock]:
    """Return a clip as content, or where it was saved."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        copyfile(path, folder / name)
        return [TextContent(type="text", text=json_line({"path": str(folder / name)}))]
    size = path.stat().st_size
    if size > _MOST_CLIP_BYTES:
        raise ToolError(
            f"the clip has {size / 1e6:.0f} MB, too much for an answer: cut a shorter one, or have the server started "
            "with --save-clips"
        )
    resource = BlobResourceContents(
        uri=f"clip:///{path.name}",
        mime_type="video/mp4",
        blob=base64.b64encode(path.read_bytes()).decode(),
    )
    return [EmbeddedResource(type="resource", resource=resource)]


def _overlap(one: Span, other: Span) -> bool:
    return one.start_seconds < other.end_seconds and one.end_seconds > other.start_seconds
