"""`scanonce localise`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.ui.commands.options import INTERRUPTED, ConfigOption, IndexOption
from scanonce.ui.commands.progress import progress_bar, speed_text
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import count_text

if TYPE_CHECKING:
    from rich.console import Console

    from scanonce.models.soonet.trained import TrainedLocaliser
    from scanonce.storage.manifest import Manifest
    from scanonce.ui.config import Config


def localise(
    index_dir: IndexOption = None,
    localiser: Annotated[
        str | None,
        typer.Option(
            help='"bundled", a folder, a published .pth file, or "training-free".',
            show_default="that of the index",
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Derive all anchors again, not only missing ones.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Change the localiser of an index, which finds the moments; no video is decoded."""
    from scanonce.indexer.anchors import derive_anchors
    from scanonce.models.soonet.trained import choose_localiser
    from scanonce.storage.manifest import read_manifest
    from scanonce.ui.config import read_config

    settings = read_config(config)
    layout = settings.layout(index_dir)
    manifest = read_manifest(layout)
    chosen = choose_localiser(
        localiser or manifest.localiser or settings.models.localiser,
        fingerprint=manifest.fingerprint,
        dim=manifest.dim,
        sampling=manifest.sampling,
        fps=manifest.sample_fps,
        device=settings.models.device,
    )
    console = new_console()
    if chosen is not None:
        _check(chosen, manifest, settings, console)
    started = time.monotonic()
    with progress_bar(console, "deriving anchors") as report_progress:

        def on_video(done: int, total: int, video_seconds: float) -> None:
            report_progress(done, total, speed_text(video_seconds, time.monotonic() - started))

        report = derive_anchors(layout, chosen, rebuild=rebuild, on_video=on_video)
    if report.interrupted:
        console.print(
            "Stopped. Searches still use the old anchors; the same command goes on from here.",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)
    name = (
        f"{verbatim(chosen.name)} ({verbatim(chosen.folder)})"
        if chosen
        else "the training-free localiser"
    )
    console.print(
        f"Moments of {count_text(report.videos, 'video')} are found by {name}; "
        f"anchors of {count_text(report.derived, 'video')} were derived. Nothing was decoded.",
        soft_wrap=True,
    )


def _check(
    chosen: "TrainedLocaliser", manifest: "Manifest", settings: "Config", console: "Console"
) -> None:
    """Check that the encoder of the index works and that the localiser reads its texts."""
    from scanonce.indexer.models import check_texts
    from scanonce.models.encoders.check import check_named, was_checked
    from scanonce.models.encoders.load import load_encoder

    with console.status(f"checking encoder {verbatim(manifest.encoder)}"):
        if was_checked(manifest.fingerprint):
            encoder = load_encoder(manifest.encoder, settings.models, towers="text")
        else:
            encoder = check_named(manifest.encoder, settings.models)
        check_texts(chosen, encoder)
    if chosen.model.config.encoder_fingerprint is None:
        console.print(
            f"{verbatim(chosen.name)} does not say which encoder it was trained on, so it cannot be checked against "
            f"{verbatim(manifest.encoder)}: with any other its moments are noise. The published ones were trained on "
            "OpenAI's ViT-B/32 (docs/soonet.md).",
            soft_wrap=True,
        )
