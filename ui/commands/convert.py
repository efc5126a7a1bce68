"""`scanonce convert`."""

from pathlib import Path
from typing import Annotated

import typer

from scanonce.storage.errors import EncoderError
from scanonce.training.clip.recipe import Recipe
from scanonce.ui.console import new_console, verbatim


def convert(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[openai] SOURCE OUT",
            help="A published checkpoint (a file) or an encoder (a folder), and the folder or file to write. openai: "
            "SOURCE is one of OpenAI's archives, such as ViT-B-32.pt.",
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Hub id, or folder with the tokenizer.json of a CLIP.",
            show_default="openai/clip-vit-base-patch32",
        ),
    ] = None,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Number of frames a clip had when the head was trained.")
    ] = Recipe.max_frames,
) -> None:
    """Convert a checkpoint of CLIP4Clip or OpenAI into an encoder, or an encoder into one of CLIP4Clip."""
    from scanonce.models.clip4clip.convert import (
        DEFAULT_TOKENIZER,
        convert_to_folder,
        convert_to_published,
    )

    source, out, is_openai = _named(files)
    console = new_console()
    with console.status(f"converting {verbatim(source)}"):
        if source.is_dir() and not is_openai:
            convert_to_published(source, out)
        elif source.exists():
            convert_to_folder(
                source,
                out,
                tokenizer=tokenizer or DEFAULT_TOKENIZER,
                max_frames=max_frames,
                is_openai=is_openai,
            )
        else:
            raise EncoderError(
                f"there is nothing at {source}: give a published CLIP4Clip checkpoint, such as pytorch_model.bin.4, "
                "or the folder of an encoder; or openai and one of OpenAI's archives, such as ViT-B-32.pt."
            )
    console.print(verbatim(f"wrote {out}: {_usage(out)}"), soft_wrap=True, highlight=False)


def _named(files: list[str]) -> tuple[Path, Path, bool]:
    """Return SOURCE, OUT and whether SOURCE is one of OpenAI's archives."""
    match files:
        case [source, out]:
            return Path(source), Path(out), False
        case ["openai", source, out]:
            return Path(source), Path(out), True
    raise typer.BadParameter("give SOURCE and OUT, or openai, SOURCE and OUT")


def _usage(out: Path) -> str:
    """Return the kind of a result and its next step."""
    from scanonce.models.clip4clip.head_files import read_head_config
    from scanonce.models.clip4clip.heads import SEQUENTIAL_KINDS

    if out.is_file():
        return "a checkpoint for CLIP4Clip's own code"
    command = f"scanonce index VIDEOS --encoder {out}"
    if not (out / "head.json").exists():
        return f"an encoder, clips are pooled by their mean; {command}"
    kind = read_head_config(out).kind
    if kind in SEQUENTIAL_KINDS:
        return f"an encoder with a {kind} head, which pools clips; {command}"
    return (
        f"an encoder with a {kind} head, which re-ranks the moments of a search; clips are pooled by their mean; "
        f"{command}"
    )
