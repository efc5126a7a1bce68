"""Requests and answers of the HTTP API, as its OpenAPI document describes it."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from scanonce.search.filters import MAX_CAMERA, MAX_TERMS, Filter
from scanonce.storage.errors import QueryError
from scanonce.storage.records import Span, TrackName
from scanonce.ui.export_kinds import ExportName, Format, format_named
from scanonce.ui.service import MAX_VIDEOS, Chosen, span_of
from scanonce.ui.timecode import RateName

_RATE_HELP = (
    "Frame rate of the timeline; `df`: with drop frame. Default: that of the first moment's video"
)

Id = Annotated[int, Field(ge=0, lt=1 << 43, description="Id of a video.")]
Seconds = Annotated[
    float, Field(ge=0, le=1e9, description="Seconds from the first frame of the video.")
]
Text = Annotated[str, Field(max_length=2_000, description="A query; see docs/queries.md.")]
Label = Annotated[str, Field(min_length=1, max_length=100)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
PathText = Annotated[str, Field(max_length=4_096)]
Top = Annotated[int, Field(ge=1, le=MAX_VIDEOS, description="The most moments.")]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilterRequest(_Given):
    """The videos to search: those that meet all conditions."""

    folders: list[PathText] = Field(
        default=[],
        max_length=MAX_TERMS,
        description="Videos at or below one of these folders of the index.",
    )
    labels: list[Label] = Field(
        default=[], max_length=MAX_TERMS, description="Videos with all of these."
    )
    without_labels: list[Label] = Field(
        default=[], max_length=MAX_TERMS, description="Videos with none of these."
    )
    recorded_after: date | None = Field(
        default=None,
        description="First day of the recording; the last change of the file if it is not known.",
    )
    recorded_before: date | None = Field(default=None, description="Last day of the recording.")
    indexed_after: date | None = Field(default=None, description="First day of the last indexing.")
    indexed_before: date | None = Field(default=None, description="Last day of the last indexing.")
    min_seconds: float | None = Field(default=None, description="Least length, inclusive.")
    max_seconds: float | None = Field(default=None, description="Greatest length, exclusive.")
    camera: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CAMERA,
        description="Make and model contain this.",
    )
    near: tuple[float, float, float] | None = Field(
        default=None,
        description="Latitude and longitude in degrees, and the greatest distance in km.",
    )

    def filter(self) -> Filter:
        """Return the filter.

        Raises:
            QueryError: a condition makes no sense.
        """
        values = self.model_dump(exclude={"folders"})
        return Filter(folders=tuple(map(_folder, self.folders)), **values)


def _folder(text: str) -> Path:
    if "\0" in text:
        raise QueryError("a folder has no NUL character in its path")
    return Path(text)


class SearchRequest(_Given):
    """A search."""

    text: Text
    top: Top | None = Field(
        default=None, description="The most moments. Default: that of the settings."
    )
    filter: FilterRequest = FilterRequest()


class SpanRequest(_Given):
    """A span of a video."""

    video_id: Id
    start_seconds: Seconds
    end_seconds: Seconds

    def span(self) -> Span:
        """Return the span.

        Raises:
            QueryError: it ends before it begins.
        """
        return span_of(self.start_seconds, self.end_seconds)


class SimilarRequest(SpanRequest):
    """A search for moments that look like a span."""

    top: Top | None = None
    filter: FilterRequest = FilterRequest()


class ChosenRequest(SpanRequest):
    """A moment to export."""

    label: str = Field(default="moment", max_length=500)
    probability: float | None = Field(default=None, ge=0, le=1)

    def chosen(self) -> Chosen:
        """Return the moment for `Service.export`."""
        return Chosen(**self.model_dump())


class ExportSelectsRequest(_Given):
    """The form in which the selects are exported."""

    format: ExportName
    rate: RateName | None = Field(default=None, description=_RATE_HELP)

    @property
    def kind(self) -> Format:
        """The format."""
        return format_named(self.format)


class ExportRequest(ExportSelectsRequest):
    """Moments to export, in their order."""

    moments: list[ChosenRequest] = Field(min_length=1, max_length=MAX_VIDEOS)


class SelectRequest(_Given):
    """Moments to add to the selects, at the end, in their order."""

    moments: list[ChosenRequest] = Field(min_length=1, max_length=MAX_VIDEOS)


class SelectOut(BaseModel):
    """A select."""

    key: str = Field(description="Names it: no two selects have the same.")
    video_id: int
    start_seconds: float
    end_seconds: float
    name: str
    note: str
    query: str
    probability: float | None


class SelectsOut(BaseModel):
    """The selects, in the order of the cut."""

    selects: list[SelectOut]


class LabelsRequest(_Given):
    """Labels to add to videos and to remove from them."""

    video_ids: list[Id] = Field(min_length=1, max_length=MAX_VIDEOS)
    add: list[Label] = Field(default=[], max_length=MAX_TERMS)
    remove: list[Label] = Field(default=[], max_length=MAX_TERMS)


class SavedRequest(_Given):
    """A search to keep."""

    name: Name
    text: Text
    filter: FilterRequest = FilterRequest()


class RunRequest(_Given):
    """A run of the indexer."""

    folders: list[PathText] = Field(
        default=[],
        max_length=MAX_TERMS,
        description="Folders of the index, or at or below serve.roots of the configuration. Default: all of the index.",
    )
    retry: bool = Field(
        default=False, description="Also decode again the videos that failed before."
    )


# ---------------------------------------------------------------- answers


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="The value, the allowed ones, and the next step.")


class ReasonOut(BaseModel):
    """The channel that found a moment."""

    channel: str
    value: float
    text: str | None = None
    marks: list[list[int]] | None = None


class MomentOut(BaseModel):
    """A moment."""

    video_id: int
    path: str
    start_seconds: float
    end_seconds: float
    probability: float
    match: Literal["strong", "fair", "weak"]
    score: float
    reasons: list[ReasonOut]


class AnswerOut(BaseModel):
    """The answer to a search, best moment first: the JSON of `scanonce search`."""

    query: str
    filter: dict[str, Any] | None = None
    videos: int | None = None
    no_good_match: bool
    num_good: int
    notes: list[str]
    coverage: dict[str, int] | None = None
    moments: list[MomentOut]
    timings_ms: dict[str, float]


class CurveOut(BaseModel):
    """The scores of the pieces of a video, and the times between them."""

    edges_seconds: list[float]
    scores: list[float]


class AudioTrackOut(BaseModel):
    """A track of sound."""

    channels: int
    language: str
    codec: str


class VideoOut(BaseModel):
    """A video, with what its file states about the recording."""

    video_id: int
    path: str
    paths: list[str]
    state: str
    duration_seconds: float
    width: int
    height: int
    fps: float
    codec: str
    size_bytes: int
    indexed_at: str | None
    labels: list[str]
    recorded_at: str | None
    recorded_by: Literal["camera", "name", "container", "day", "file"] | None = Field(
        description="What states the time; `file` is that of the last change of the file."
    )
    timecode: str | None = Field(description="Of the first frame; `;` is drop frame.")
    camera: str | None
    latitude: float | None
    longitude: float | None
    rotation: int
    audio: list[AudioTrackOut]


class VideosOut(BaseModel):
    """A page of videos, by rising id."""

    videos: list[VideoOut]
    next_after: int | None = Field(description="`after` of the next page; null on the last one.")


class LineOut(BaseModel):
    """A line of a transcript."""

    track: TrackName
    start_seconds: float
    end_seconds: float
    text: str
    confidence: float
    language: str | None


class LinesOut(BaseModel):
    """A transcript."""

    lines: list[LineOut]


class LabelsOut(BaseModel):
    """The number of videos by label."""

    labels: dict[str, int]


class LabelledOut(BaseModel):
    """How many labels were changed."""

    added: int
    removed: int


class SavedSearchOut(BaseModel):
    """A saved search."""

    name: str
    query: str
    filter: dict[str, Any]
    created: str
    last_looked: str | None
    new: int = Field(description="Good matches in videos that came since the last look.")
    problem: str | None = Field(
        description="Why it cannot be asked now, such as a folder that has left the index."
    )


class SavedOut(BaseModel):
    """All saved searches."""

    saved: list[SavedSearchOut]


class RunOut(BaseModel):
    """The current run of the indexer, or the last one."""

    state: str
    folders: list[str] = []
    started_at: str | None = None
    doing: str | None = None
    videos_done: int | None = None
    videos_total: int | None = None
    share: float | None = None
    seconds_left: float | None = None
    error: str | None = None
