"""`scanonce search`."""

import codecs
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanonce.storage.errors import QueryError
from scanonce.ui.commands.examples import read_examples, read_piece
from scanonce.ui.commands.filter_options import (
    AfterOption,
    BeforeOption,
    CameraOption,
    FoldersOption,
    LabelsOption,
    LongerOption,
    NearOption,
    ShorterOption,
    WithoutLabelsOption,
    new_filter,
)
from scanonce.ui.commands.found import (
    Actions,
    ExportOption,
    OpenOption,
    PathsOption,
    RateOption,
    SaveClipsOption,
)
from scanonce.ui.commands.notes import note_inexact_times
from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption
from scanonce.ui.commands.search_output import NO_ACTIONS, ShowResult, TopOption
from scanonce.ui.config_file import config_values, index_path
from scanonce.ui.console import note, print_json
from scanonce.ui.resident import ask, settings_digest
from scanonce.ui.safe_text import encodable
from scanonce.ui.views import INEXACT_TIMES

if TYPE_CHECKING:
    from scanonce.search.engine import SearchEngine
    from scanonce.search.filters import Filter
    from scanonce.search.result import SearchResult
    from scanonce.ui.resident import Remote

_BATCH = 64  # queries encoded and looked up together


def search(
    text: Annotated[str | None, typer.Argument(help="Description of the moment.")] = None,
    index_dir: IndexOption = None,
    top: TopOption = None,
    only_good: Annotated[
        bool, typer.Option("--good", help="Only the good matches, not the less certain moments.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(help="File with one query a line (- for standard input); needs --json."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="FILE", help="Image that the moments look like."),
    ] = None,
    clips: Annotated[
        list[str] | None,
        typer.Option("--clip", metavar="FILE[@a-b]", help="Clip, or a piece of it, likewise."),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(metavar="L,T,R,B", help="Part of the image that counts: 0.1,0.2,0.5,0.6."),
    ] = None,
    more_like: Annotated[
        list[str] | None,
        typer.Option(metavar="VIDEO@a-b", help="Moment that was right: its like comes first."),
    ] = None,
    less_like: Annotated[
        list[str] | None,
        typer.Option(metavar="VIDEO@a-b", help="Moment that was wrong: it is left out."),
    ] = None,
    folders: FoldersOption = None,
    labels: LabelsOption = None,
    without_labels: WithoutLabelsOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    longer: LongerOption = None,
    shorter: ShorterOption = None,
    camera: CameraOption = None,
    near: NearOption = None,
    save_clips: SaveClipsOption = None,
    export: ExportOption = None,
    rate: RateOption = None,
    open_first: OpenOption = False,
    paths: PathsOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find the moments that show what a text describes, or that look like an image or a clip."""
    has_examples = bool(images or clips or more_like or less_like)
    _check_usage(text is not None, has_examples, queries is not None, as_json)
    actions = Actions(save_clips, export, open_first, paths, rate)
    _check_actions(actions, queries is not None, as_json)
    only = new_filter(folders, labels, without_labels, after, before, longer, shorter, camera, near)
    if text is not None and not has_examples and queries is None:
        values = config_values(config)
        root = index_path(values, index_dir)
        remote = _answer_of_server(values, root, text, top, only)
        if remote is not None:
            ShowResult(root, only, only_good, as_json, actions)(remote.result, remote.covered)
            return
    from scanonce.ui.config import read_config

    examples = read_examples(images or (), clips or (), crop)
    more, less = ([read_piece(each) for each in given or ()] for given in (more_like, less_like))
    settings = read_config(config)
    show = ShowResult(settings.index_path(index_dir), only, only_good, as_json, actions)
    with settings.library(index_dir) as library:
        note_inexact_times(library)
        engine = library.engine  # a missing index is an error even if the file has no query
        if queries is not None:
            _search_file(engine, read_queries(queries), top, show)
            return
        from scanonce.ui.service import Service

        answered = Service(library).search(
            text or "", examples=examples, more_like=more, less_like=less, top=top, only=only
        )
        show(answered.result, answered.covered)


def _answer_of_server(
    values: Mapping[str, Any], root: Path, text: str, top: int | None, only: "Filter"
) -> "Remote | None":
    """Ask the server that has the index open, if there is one; models need not be loaded then."""
    from scanonce.search.filters import filter_json

    request = {"text": text, "top": top, "filter": filter_json(only)}
    remote = ask(root, settings_digest(values), request)
    if remote is not None and remote.inexact_times:
        note(f"{INEXACT_TIMES}.")
    return remote


def _search_file(
    engine: "SearchEngine", lines: "Sequence[QueryLine]", top: int | None, show: ShowResult
) -> None:
    """Print the answer to each line, in order."""
    for start in range(0, len(lines), _BATCH):
        batch = lines[start : start + _BATCH]
        texts = [line.text for line in batch if line.error is None]
        results = iter(_answers(engine, texts, top, show.only))
        for line in batch:
            answer = next(results) if line.error is None else QueryError(line.error)
            if isinstance(answer, QueryError):
                print_json({"query": line.text, "error": str(answer)})
            else:
                show(answer)


def _check_usage(has_text: bool, has_examples: bool, has_queries: bool, as_json: bool) -> None:
    if not (has_text or has_examples or has_queries):
        raise typer.BadParameter("give a text, --image, --clip or --more-like; or --queries FILE")
    if has_queries and (has_examples or has_text):
        raise typer.BadParameter(
            "--queries reads its texts from a file: give nothing else to search by"
        )
    if has_queries and not as_json:
        raise typer.BadParameter("--queries prints one JSON object a line: add --json")


def _check_actions(actions: Actions, has_queries: bool, as_json: bool) -> None:
    if has_queries and actions != NO_ACTIONS:
        raise typer.BadParameter("--queries prints JSON and nothing else")
    if actions.rate is not None and actions.export in (None, "csv", "srt"):
        raise typer.BadParameter(
            "--rate is that of a timeline: add --export edl, otio, fcpxml, xml or markers"
        )
    if sum((actions.export is not None, actions.paths, as_json)) > 1:
        raise typer.BadParameter("--json, --export and --paths each print something else: give one")


def _answers(
    engine: "SearchEngine", texts: Sequence[str], top: int | None, only: "Filter"
) -> "list[SearchResult | QueryError]":
    """Answer queries together; if one of them has no answer, each by itself."""
    try:
        return [*engine.search_many(texts, top=top, within=only)]
    except QueryError as error:
        if len(texts) == 1:
            return [error]
    return [_answers(engine, [text], top, only)[0] for text in texts]


@dataclass(frozen=True, slots=True)
class QueryLine:
    """A line of a file of queries."""

    text: str
    """The query as it is searched; if there is an error, what can be shown of the line."""
    error: str | None = None
    """Why it is no query."""


def read_queries(path: Path) -> list[QueryLine]:
    """Return the lines of a text file, which end with LF or CR LF; ``-`` is standard input.

    A line that is empty or not UTF-8 has its error and costs no other line anything.

    Raises:
        QueryError: the file cannot be read, or is in UTF-16 or UTF-32.
    """
    from scanonce.search.query import parse
    from scanonce.search.query_text import query_text

    lines = _content(path).split(b"\n")
    if not lines[-1]:  # after the last line's end
        lines.pop()
    read = []
    for line in lines:
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        try:
            taken = query_text(text)
            parse(taken)
            read.append(QueryLine(taken))
        except QueryError as error:
            read.append(QueryLine(encodable(text), str(error)))
    return read


def _content(path: Path) -> bytes:
    if str(path) == "-" and sys.stdin is None:
        raise _unreadable(path, "standard input is closed")
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no file has such a name
        reason = getattr(error, "strerror", None) or error
        raise _unreadable(path, str(reason)) from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise _unreadable(path, "it is in UTF-16 or UTF-32")
    return content


def _unreadable(path: Path, reason: str) -> QueryError:
    return QueryError(
        f"the queries in {path} cannot be read: {reason}. Name a text file in UTF-8, one query a line"
    )
