"""`scanonce encoders`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanonce.ui.commands.options import ConfigOption, JsonOption
from scanonce.ui.console import new_console, note, print_json, verbatim

if TYPE_CHECKING:
    from scanonce.models.encoders.known import KnownEncoder
    from scanonce.ui.config import Config


def encoders(
    language: Annotated[
        str, typer.Option(help="Language of your queries, a code of two letters such as de.")
    ] = "en",
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure frames a second of those on this machine."),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the encoders that load here, with their languages and sizes, and recommend one."""
    from scanonce.models.encoders.known import KNOWN, recommend
    from scanonce.models.runtime import pick_device
    from scanonce.ui.config import read_config

    settings = read_config(config)
    device = pick_device(settings.models.device)
    advised = recommend(language, has_gpu=device.type != "cpu")
    rows = [_row(each, settings, measure) for each in KNOWN]
    if as_json:
        print_json({"recommended": advised.name, "encoders": rows})
        return
    _show(rows, measure)
    _show_advice(advised, language, str(device))


def _row(known: "KnownEncoder", settings: "Config", measure: bool) -> dict[str, Any]:
    """Return an encoder in the documented schema (docs/cli.md)."""
    from scanonce.models.encoders.known import is_here

    here = is_here(known.name)
    speed = _measured(known.name, settings) if measure and here else None
    return {**asdict(known), "is_here": here, "frames_per_second": speed}


def _measured(name: str, settings: "Config") -> float | None:
    """Return frames a second; None, with a line, if the encoder cannot be loaded."""
    from scanonce.models.encoders.load import load_encoder
    from scanonce.models.encoders.speed import frames_per_second
    from scanonce.storage.errors import EncoderError

    try:
        return round(frames_per_second(load_encoder(name, settings.models, towers="vision")), 1)
    except EncoderError as error:
        note(*error.args)
        return None


def _show(rows: list[dict[str, Any]], measure: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    columns = ["name", "languages", "MB", "dim", "here", *(["frames/s"] if measure else []), ""]
    for column in columns:
        is_number = column in ("MB", "dim", "frames/s")
        table.add_column(column, justify="right" if is_number else "left", no_wrap=column == "name")
    for row in rows:
        speed = row["frames_per_second"]
        table.add_row(
            verbatim(row["name"]),
            row["languages"],
            f"{row['megabytes']:,}",
            str(row["dim"]),
            "yes" if row["is_here"] else "-",
            *([f"{speed:,.1f}" if speed else "-"] if measure else []),
            row["remark"],
        )
    new_console().print(table)


def _show_advice(advised: "KnownEncoder", language: str, device: str) -> None:
    from scanonce.models.encoders.hub import offered_concepts
    from scanonce.models.encoders.known import is_here

    here = is_here(advised.name)
    get = (
        "it is on this machine"
        if here
        else f"without a network here: scanonce fetch {advised.name} --to FOLDER on another machine"
    )
    console = new_console()
    console.print(
        f"For queries in {verbatim(language)} on this machine ({device}): scanonce index VIDEOS --encoder "
        f"{advised.name} ({advised.megabytes:,} MB; {get}).",
        soft_wrap=True,
        highlight=False,
    )
    if not here and language == "en":
        console.print("Without any download from the hub, for objects, animals and scenes:")
        for line in offered_concepts():
            console.print(verbatim(line), soft_wrap=True, highlight=False)
