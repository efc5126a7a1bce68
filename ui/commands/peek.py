"""`scanonce peek`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from scanonce.storage.errors import VideoError
from scanonce.ui.commands.found import (
    Actions,
    ExportOption,
    OpenOption,
    RateOption,
    SaveClipsOption,
)
from scanonce.ui.commands.options import (
    ConfigOption,
    EncoderOption,
    JsonOption,
    KeyframesOption,
    absolute,
    typed_settings,
)
from scanonce.ui.commands.search_output import ShowResult, TopOption


def peek(
    file: Annotated[Path, typer.Argument(help="A video.")],
    text: Annotated[str, typer.Argument(help="Description of the moment.")],
    top: TopOption = None,
    encoder: EncoderOption = None,
    keyframes: KeyframesOption = False,
    save_clips: SaveClipsOption = None,
    export: ExportOption = None,
    rate: RateOption = None,
    open_first: OpenOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find moments in one file without an index: it is scanned, searched and forgotten."""
    from scanonce.search.filters import Filter
    from scanonce.search.query import parse
    from scanonce.search.query_text import query_text
    from scanonce.ui.config import read_config

    parse(query_text(text))  # an error before the file is scanned
    source = absolute(file)
    with (
        tempfile.TemporaryDirectory(prefix="scanonce-peek-") as folder,
        read_config(config).library(Path(folder) / "index") as library,
    ):
        report = library.index([source], encoder=encoder, typed=typed_settings(keyframes))
        if not report.counts.indexed + report.counts.partial:
            reasons = [each.reason for each in library.status().failures]
            raise VideoError(
                f"{source} cannot be searched: {reasons[0] if reasons else 'no video'}"
            )
        actions = Actions(save_clips, export, open_first, rate=rate)
        show = ShowResult(library.root, Filter(), False, as_json, actions)
        show(library.search(text, top=top))
