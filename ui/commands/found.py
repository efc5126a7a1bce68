"""Uses of the moments that `scanonce search` found: playing one, cutting them, listing them for editors."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.storage.errors import ConfigError, IndexDirectoryError, QueryError
from scanonce.storage.records import Moment, Span
from scanonce.ui.clip_files import clip_name
from scanonce.ui.console import new_console, note
from scanonce.ui.export_kinds import ExportName, format_named
from scanonce.ui.safe_text import visible
from scanonce.ui.timecode import RateName

if TYPE_CHECKING:
    from scanonce.search.result import SearchResult
    from scanonce.ui.export import Pick


SaveClipsOption = Annotated[
    Path | None,
    typer.Option("--save-clips", metavar="DIR", help="Cut the moments into files of this folder."),
]
ExportOption = Annotated[
    ExportName | None,
    typer.Option("--export", help="Print the moments as a list for other programs instead."),
]
RateOption = Annotated[
    RateName | None,
    typer.Option("--rate", help="Frame rate of the timeline of --export; df: with drop frame."),
]
OpenOption = Annotated[
    bool,
    typer.Option("--open", help="Play the first moment: in mpv, VLC or ffplay, if there is one."),
]
PathsOption = Annotated[
    bool, typer.Option("--paths", help="Print the paths of the videos and nothing else.")
]

_PLAYERS: dict[str, Callable[[str, float], list[str]]] = {
    "mpv": lambda path, start: [f"--start={start:.3f}", "--", path],
    "vlc": lambda path, start: [f"--start-time={start:.3f}", path],
    "ffplay": lambda path, start: ["-ss", f"{start:.3f}", "-autoexit", path],
}


@dataclass(frozen=True, slots=True)
class Actions:
    """The uses that were asked for."""

    save_clips: Path | None = None
    export: ExportName | None = None
    open_first: bool = False
    paths: bool = False
    rate: RateName | None = None

    @property
    def replaces_output(self) -> bool:
        """Whether the answer itself is not printed."""
        return self.export is not None or self.paths

    def __call__(self, root: Path, result: "SearchResult") -> None:
        """Do it.

        Args:
            root: the index directory.
            result: the answer.
        """
        if self.paths:
            for path in dict.fromkeys(moment.path for moment in result.moments):
                print(visible(path))
        if self.export is not None:
            write_export(root, self.export, result, self.rate)
        if self.save_clips is not None:
            save_clips(result.moments, self.save_clips)
        if self.open_first:
            play(result.moments)


def save_clips(moments: Sequence[Moment], folder: Path) -> None:
    """Cut moments into files of a folder, and name each on standard error; one that cannot be cut costs no other.

    Raises:
        IndexDirectoryError: the folder cannot be made.
        ConfigError: none could be cut.
    """
    from scanonce.media.cut import write_clip
    from scanonce.storage.errors import VideoError, reported

    with reported(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
    cut = 0
    for number, moment in enumerate(moments, 1):
        out = folder / f"{number:02} {clip_name(moment.path, moment.span)}"
        try:
            write_clip(moment.path, moment.span, out)
        except VideoError as error:
            note(f"{moment.path}: {error}")
        else:
            cut += 1
            note(f"{out}")
    if moments and not cut:
        raise ConfigError("no moment could be cut: are the videos still where they were indexed?")


def write_export(
    root: Path, kind: ExportName, result: "SearchResult", rate: RateName | None = None
) -> None:
    """Print moments as a list for other programs.

    Raises:
        QueryError: subtitles of several videos were asked for.
        IndexDirectoryError: the index cannot be read.
    """
    from scanonce.storage.index import Index
    from scanonce.ui.export_files import pick_of

    if kind == "srt" and len({moment.video_id for moment in result.moments}) != 1:
        raise QueryError("subtitles are of one video: name it with --in FILE")
    with Index.open(root, read_only=True) as index:
        videos = {
            video.video_id: video
            for video in index.catalog.videos({moment.video_id for moment in result.moments})
        }
    if missing := [each.path for each in result.moments if each.video_id not in videos]:
        raise IndexDirectoryError(f"{missing[0]} was forgotten meanwhile: search again")
    picks = [
        pick_of(videos[moment.video_id], moment.span, result.query, moment)
        for moment in result.moments
    ]
    print_export(kind, picks, rate)


def print_export(kind: ExportName, picks: "Sequence[Pick]", rate: RateName | None) -> None:
    """Print moments in a format for other programs."""
    from scanonce.ui.export_files import export_content

    content = export_content(format_named(kind), picks, rate)
    if new_console().is_terminal:  # whatever is in a name, the terminal does not obey it
        print(*map(visible, content.decode().splitlines()), sep="\n")
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()


def play(moments: Sequence[Moment]) -> None:
    """Play the first moment, and return when the player has ended.

    Raises:
        QueryError: there is no moment.
        ConfigError: there is no player.
    """
    if not moments:
        raise QueryError("there is no moment to play")
    path, span = moments[0].path, moments[0].span
    for name, arguments in _PLAYERS.items():
        if program := shutil.which(name):
            subprocess.run(
                [program, *arguments(str(path), span.start_seconds)],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            return
    raise ConfigError(
        f"there is no player that begins at a time: install {', '.join(_PLAYERS)}, or open {path} at "
        f"{span.start_seconds:.1f} s"
    )


def span_of(start: str, end: str) -> Span:
    """Return the span of two times such as 80, 1:20 or 1:01:20.5.

    Raises:
        QueryError: they are no times, or the second is not after the first.
    """
    from scanonce.search.query import seconds_of

    first, last = seconds_of(start), seconds_of(end)
    if first is None or last is None or not 0 <= first < last < inf:
        raise QueryError(
            f"a clip is two times such as 80, 1:20 or 1:01:20.5, the first before the second; got {start} and {end}"
        )
    return Span(first, last)
