"""`scanonce selects`."""

from typing import Annotated

import typer
from rich.table import Table

from scanonce.storage.errors import QueryError
from scanonce.ui.commands.found import RateOption, print_export
from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.export_kinds import ExportName
from scanonce.ui.views import span_text

ExportOption = Annotated[
    ExportName | None,
    typer.Option("--export", help="Print them as a list for other programs instead."),
]


def selects(
    index_dir: IndexOption = None,
    export: ExportOption = None,
    rate: RateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the moments that were picked on the pages, in the order of the cut."""
    from scanonce.storage.index import Index
    from scanonce.storage.layout import IndexLayout
    from scanonce.storage.selects import SelectsFile
    from scanonce.ui.config import read_config
    from scanonce.ui.export_files import picks_of

    root = read_config(config).index_path(index_dir)
    with Index.open(root, read_only=True) as index:
        kept = SelectsFile(IndexLayout.of(root)).read()
        ids = {each.video_id for each in kept}
        videos = {video.video_id: video for video in index.catalog.videos(ids)}
    if export is not None:
        picks = picks_of(kept, videos)
        if not picks:
            raise QueryError("nothing is selected: pick moments on the pages of `scanonce ui`")
        if export == "srt" and len({pick.path for pick in picks}) != 1:
            raise QueryError("subtitles are of one video, and several are selected: export csv")
        print_export(export, picks, rate)
    elif as_json:
        from scanonce.ui.selects_json import selects_json

        print_json(selects_json(kept))
    else:
        table = Table("file", "span", "note", box=None, pad_edge=False)
        for each in kept:
            table.add_row(
                verbatim(each.name), span_text(each.span), verbatim(each.note or each.query)
            )
        new_console().print(table)
