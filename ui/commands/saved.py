"""`scanonce saved add`, `list`, `run` and `remove`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

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
from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption
from scanonce.ui.commands.search_output import ShowResult, TopOption
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.views import date_text

if TYPE_CHECKING:
    from scanonce.search.saved import SavedSearch

NameArgument = Annotated[str, typer.Argument(help="Name of the saved search.")]


def add_saved(
    name: NameArgument,
    query: Annotated[str, typer.Argument(help="The query, as for `scanonce search`.")],
    index_dir: IndexOption = None,
    folders: FoldersOption = None,
    labels: LabelsOption = None,
    without_labels: WithoutLabelsOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    longer: LongerOption = None,
    shorter: ShorterOption = None,
    camera: CameraOption = None,
    near: NearOption = None,
    config: ConfigOption = None,
) -> None:
    """Save a search with its filter under a name."""
    from scanonce.ui.config import read_config

    only = new_filter(folders, labels, without_labels, after, before, longer, shorter, camera, near)
    saved = read_config(config).library(index_dir).saved.add(name, query, only)
    new_console().print(
        f"Saved. Next: scanonce saved run {verbatim(saved.name)}", highlight=False, soft_wrap=True
    )


def list_saved(
    index_dir: IndexOption = None, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """List the saved searches, with the number of good matches in videos that came since the last look."""
    from scanonce.ui.config import read_config

    with read_config(config).library(index_dir) as library:
        rows = [(saved, *library.saved.count_new(saved)) for saved in library.saved.all()]
    if as_json:
        from scanonce.ui.door_json import saved_json

        print_json({"saved": [saved_json(*row) for row in rows]})
    elif not rows:
        new_console().print("There is no saved search yet: scanonce saved add NAME QUERY")
    else:
        new_console().print(_table(rows))


def run_saved(
    name: NameArgument,
    index_dir: IndexOption = None,
    top: TopOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Answer a saved search, and note that it was looked at."""
    from scanonce.ui.config import read_config

    settings = read_config(config)
    with settings.library(index_dir) as library:
        only = library.saved.get(name).only
        result = library.saved.run(name, top=top)
    ShowResult(settings.index_path(index_dir), only, False, as_json)(result)


def remove_saved(
    name: NameArgument, index_dir: IndexOption = None, config: ConfigOption = None
) -> None:
    """Remove a saved search."""
    from scanonce.ui.config import read_config

    read_config(config).library(index_dir).saved.remove(name)


def _table(rows: "list[tuple[SavedSearch, int, str | None]]") -> Table:
    from scanonce.search.saved import MOST_NEW

    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("name", "new", "last looked", "query"):
        table.add_column(name, overflow="fold", justify="right" if name == "new" else "left")
    for saved, num_new, problem in rows:
        more = " or more" if num_new >= MOST_NEW else ""
        looked = date_text(saved.looked_at) or "never"
        new = "-" if problem else f"{num_new}{more}"
        query = f"{saved.query}\ncannot be asked: {problem}" if problem else saved.query
        table.add_row(verbatim(saved.name), new, looked, verbatim(query))
    return table
