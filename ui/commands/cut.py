"""`scanonce cut`."""

from pathlib import Path
from typing import Annotated

import typer

from scanonce.storage.errors import ConfigError
from scanonce.ui.clip_files import clip_name
from scanonce.ui.commands.found import span_of
from scanonce.ui.commands.options import absolute
from scanonce.ui.safe_text import visible


def cut(
    video: Annotated[Path, typer.Argument(help="Any video; it need not be indexed.")],
    start: Annotated[str, typer.Argument(help="Begin: 80, 1:20 or 1:01:20.5.")],
    end: Annotated[str, typer.Argument(help="End.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write.", show_default="named after the video, in this folder"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    """Cut a clip out of a video, exact to the frame, with its sound."""
    from scanonce.media.cut import write_clip

    span = span_of(start, end)
    source = absolute(video)
    target = absolute(out or Path(clip_name(source, span)))
    if target.is_dir():
        raise ConfigError(f"{target} is a folder: name a file in it, such as {target / 'clip.mp4'}")
    if target.exists() and not force:
        raise ConfigError(
            f"{target} is there already: name another file with --out, or add --force"
        )
    write_clip(source, span, target)
    print(visible(target))
