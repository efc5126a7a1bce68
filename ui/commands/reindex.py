"""`scanonce reindex`."""

from typing import Annotated

import typer

from scanonce.ui.commands.index import show_report
from scanonce.ui.commands.options import (
    INTERRUPTED,
    ConfigOption,
    IndexOption,
    KeyframesOption,
    SampleFpsOption,
    typed_settings,
)
from scanonce.ui.commands.progress import index_progress
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import count_text


def reindex(
    index_dir: IndexOption = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help='Encoder of the new index: hub id, local folder, "concepts" (needs no hub), or "bundled".',
            show_default="that of the index",
        ),
    ] = None,
    keyframes: KeyframesOption = False,
    sample_fps: SampleFpsOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Switch even if videos would no longer be found.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Scan all videos again with another encoder or other settings; searches use the old index meanwhile."""
    from scanonce.indexer.models import load_models
    from scanonce.indexer.reindex import reindex
    from scanonce.storage.manifest import read_manifest
    from scanonce.ui.config import read_config

    settings = read_config(config)
    layout = settings.layout(index_dir)
    indexer = settings.indexer.model_copy(update=typed_settings(keyframes, sample_fps))
    console = new_console()
    manifest = read_manifest(layout)
    with console.status("loading and checking the encoder"):
        loaded = load_models(manifest, settings.models, indexer, encoder=encoder, from_scratch=True)
    with index_progress(console) as on_progress:
        report = reindex(
            layout,
            encoder=loaded.encoder,
            settings=indexer,
            storage=settings.storage,
            localiser=loaded.localiser,
            on_progress=on_progress,
            force=force,
        )
    show_report(report.runs[0], layout.root, console)
    if report.switched:
        console.print(
            f"Searches use {verbatim(loaded.encoder.name)} from now on; the old index is removed."
        )
    elif report.lost:
        for video in report.lost:
            console.print(
                f"[yellow]{verbatim(video.path)}[/]: could not be scanned again: its file is missing now, or failed",
                soft_wrap=True,
            )
        console.print(
            f"Searches still use the old index: {count_text(len(report.lost), 'video')} would be lost. Bring the "
            "missing files back and run the same command again, which scans only those; or switch without them: "
            "--force.",
            soft_wrap=True,
        )
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not report.switched:
        raise typer.Exit(1)
