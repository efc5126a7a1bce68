"""`scanonce token add`, `list` and `revoke`."""

from typing import Annotated

import typer
from rich.table import Table

from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption
from scanonce.ui.console import new_console, print_json, verbatim

NameArgument = Annotated[str, typer.Argument(help="Name of the token, such as that of a program.")]


def add_token(
    name: NameArgument,
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="read: search and look; export: clips and edit lists; write: label, save, index. Several are allowed.",
            show_default="read",
        ),
    ] = None,
    index_dir: IndexOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a token by which a program may use the HTTP API; it is shown once."""
    from scanonce.ui.api.tokens import Tokens
    from scanonce.ui.config import read_config

    print(Tokens(read_config(config).index_path(index_dir)).add(name, scopes or ("read",)))


def list_tokens(
    index_dir: IndexOption = None, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """List the tokens, without their secrets."""
    from scanonce.ui.api.tokens import Tokens
    from scanonce.ui.config import read_config

    tokens = Tokens(read_config(config).index_path(index_dir)).all()
    if as_json:
        rows = [
            {"name": each.name, "scopes": list(each.scopes), "created": each.created}
            for each in tokens
        ]
        print_json({"tokens": rows})
        return
    if not tokens:
        new_console().print("There is no token yet: scanonce token add NAME")
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("name", "scopes", "created"):
        table.add_column(column, overflow="fold")
    for each in tokens:
        table.add_row(verbatim(each.name), ", ".join(each.scopes), verbatim(each.created))
    new_console().print(table)


def revoke_token(
    name: NameArgument, index_dir: IndexOption = None, config: ConfigOption = None
) -> None:
    """Revoke a token: it is refused from now on."""
    from scanonce.ui.api.tokens import Tokens
    from scanonce.ui.config import read_config

    Tokens(read_config(config).index_path(index_dir)).revoke(name)
