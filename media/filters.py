"""Filters of FFmpeg on decoded frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from scanonce.media.hdr import Colours, hald_image

_Form = tuple[int, int, str]  # width, height and format of pixels

_TIME_BASE = Fraction(1, 90_000)  # of no meaning: times of frames are kept beside the graph


class FrameFilter:
    """A chain of filters each of which answers a frame at once with one frame."""

    def __init__(self, *filters: tuple[str, str]) -> None:
        """``filters`` are ``(name, arguments)``, in order."""
        self._filters = filters
        self._form: _Form | None = None
        self._graph: Graph

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return the filtered frame.

        Raises:
            av.FFmpegError: the filters cannot take it.
        """
        form = _form(frame)
        if form != self._form:
            self._graph = _chain(form, self._filters)
            self._form = form
        self._graph.vpush(frame)
        return self._graph.vpull()


class ColourFilter:
    """Maps HDR and wide-gamut frames to BT.709, by the table of `media.hdr`."""

    def __init__(self, threads: int) -> None:
        """``threads`` of the filter; 0 for as many as there are cores."""
        self._threads = threads
        self._made_for: tuple[Colours, int, int] | None = None
        self._num_mapped = 0
        self._graph: Graph
        self._source: FilterContext
        self._sink: FilterContext

    def __call__(self, frame: VideoFrame, colours: Colours) -> VideoFrame:
        """Return an ``rgb48le`` frame in BT.709; the one given gets a new time stamp."""
        if self._made_for != (colours, frame.width, frame.height):
            self._build(colours, frame)
            self._made_for = (colours, frame.width, frame.height)
        # the filter leaves frames as they are that come before the table, by their time stamps
        frame.pts, frame.time_base = self._num_mapped, _TIME_BASE
        self._num_mapped += 1
        self._source.push(frame)
        mapped = self._sink.pull()
        assert isinstance(mapped, VideoFrame)
        mapped.color_primaries, mapped.color_trc = 1, 1
        return mapped

    def _build(self, colours: Colours, frame: VideoFrame) -> None:
        table = VideoFrame.from_ndarray(hald_image(colours), format="rgb48le")
        table.pts, table.time_base = 0, _TIME_BASE
        self._graph = Graph()
        self._graph.threads = self._threads
        self._source = _buffer(self._graph, _form(frame))
        tables = _buffer(self._graph, _form(table))
        lookup, self._sink = self._graph.add("haldclut"), self._graph.add("buffersink")
        self._source.link_to(lookup, 0, 0)
        tables.link_to(lookup, 0, 1)
        lookup.link_to(self._sink)
        self._graph.configure()
        tables.push(table)
        tables.push(None)  # the one table is for all frames


def deinterlaced(
    frames: Iterable[tuple[float, VideoFrame]],
) -> Iterator[tuple[float, VideoFrame]]:
    """Yield ``(seconds, frame)`` of as many frames, those marked as interlaced as whole pictures of their first field.

    Frames must follow each other, since a missing line is filled in from the fields before and after.
    """
    graph: Graph | None = None
    form: _Form | None = None
    waiting: deque[tuple[float, VideoFrame]] = deque()  # frames in the graph
    for seconds, frame in frames:
        if graph is not None and form != _form(frame):
            graph.vpush(None)
            yield from _answered(graph, waiting)
            graph = None
        if graph is None:
            if not frame.interlaced_frame:
                yield seconds, frame
                continue
            form = _form(frame)
            graph = _chain(form, (("bwdif", "mode=send_frame:deint=interlaced"),))
        waiting.append((seconds, frame))
        graph.vpush(frame)
        yield from _answered(graph, waiting)
    if graph is not None:
        graph.vpush(None)
        yield from _answered(graph, waiting)


def _answered(
    graph: Graph, waiting: deque[tuple[float, VideoFrame]]
) -> Iterator[tuple[float, VideoFrame]]:
    """Take what comes out of a graph that has one answer for each frame, in order."""
    while waiting:
        try:
            answer = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        seconds, frame = waiting.popleft()
        if frame.time_base is not None:
            answer.duration, answer.time_base = frame.duration, frame.time_base
        yield seconds, answer


def _form(frame: VideoFrame) -> _Form:
    return frame.width, frame.height, frame.format.name


def _chain(form: _Form, filters: Iterable[tuple[str, str]]) -> Graph:
    """Return a graph that takes frames of one form."""
    graph = Graph()
    nodes = [_buffer(graph, form), *(graph.add(*each) for each in filters)]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def _buffer(graph: Graph, form: _Form) -> FilterContext:
    width, height, pixels = form
    return graph.add_buffer(
        width=width, height=height, format=VideoFormat(pixels), time_base=_TIME_BASE
    )
