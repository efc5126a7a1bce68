"""The `scanonce` command. Thin: parse, call one function, render. Heavy packages are imported by the commands that
need them, so that `--help` answers at once.

Exit codes: 0 done; 1 an error, told on standard error with its next step; 2 wrong usage; 130 stopped by Ctrl-C.
"""

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.storage.errors import ScanonceError
from scanonce.training.clip.recipe import HeadName, Precision, Recipe
from scanonce.ui.server import DEFAULT_PORT

if TYPE_CHECKING:
    from scanonce.search.engine import SearchResult
    from scanonce.search.filters import Filter
    from scanonce.ui.config import Config

app = typer.Typer(
    name="scanonce",
    help="Search your videos by sentences. Each video is scanned once, when it is indexed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

IndexOption = Annotated[
    Path | None, typer.Option("--index", help="Index directory.", show_default="as in config.toml")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Configuration file.", show_default="config.toml of the checkout"
    ),
]
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders of videos, or single files.", show_default="all the index knows"),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(help='Hub id, local folder, or "bundled".', show_default="as in config.toml"),
]
KeyframesOption = Annotated[
    bool, typer.Option("--keyframes", help="Look at key frames only: faster, coarser.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run that was stopped.")
]
MinutesCapOption = Annotated[
    float | None,
    typer.Option(min=0.01, help="End after so many minutes.", show_default="no end"),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of everything.")]
ValidationShareOption = Annotated[
    float, typer.Option(min=0, max=0.9, help="Of the videos, held out; 0: none.")
]
_DAY = "%Y-%m-%d"
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON (schema: docs/cli.md).")]


@app.command()
def index(
    paths: PathsArgument = None,
    index_dir: IndexOption = None,
    encoder: EncoderOption = None,
    keyframes: KeyframesOption = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what failed, or was partial, before.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Index videos: what is new or changed is scanned, what is gone is forgotten."""
    from scanonce.ui.commands.index import run_index
    from scanonce.ui.config import read_config

    settings = read_config(config)
    report = run_index(
        paths or [],
        settings.index_path(index_dir),
        encoder=encoder,
        config=settings,
        typed={"sampling": "keyframes"} if keyframes else {},
        retry_failed=retry,
    )
    if report.interrupted:
        raise typer.Exit(130)
    if report.nothing_usable:
        raise typer.Exit(1)


@app.command()
def watch(
    paths: PathsArgument = None,
    index_dir: IndexOption = None,
    encoder: EncoderOption = None,
    config: ConfigOption = None,
) -> None:
    """Keep the index in line with folders: a file is indexed once it has stopped growing. Ctrl-C ends it."""
    from scanonce.ui.commands.watch import run_watch
    from scanonce.ui.config import read_config

    settings = read_config(config)
    run_watch(
        paths or [],
        settings.index_path(index_dir),
        encoder=encoder,
        config=settings,
    )


def _sampled(settings: "Config", keyframes: bool) -> "Config":
    sampling = {"sampling": "keyframes"} if keyframes else {}
    return settings.model_copy(update={"indexer": settings.indexer.model_copy(update=sampling)})


@app.command()
def reindex(
    index_dir: IndexOption = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help='Hub id, local folder, or "bundled".', show_default="the one the index has"
        ),
    ] = None,
    keyframes: KeyframesOption = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Switch even if videos would no longer be found.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Scan everything anew, with another encoder or other settings; searches go on until it is done."""
    from scanonce.ui.commands.index import run_reindex
    from scanonce.ui.config import read_config

    settings = read_config(config)
    report = run_reindex(
        settings.index_path(index_dir),
        encoder=encoder,
        anyway=anyway,
        config=_sampled(settings, keyframes),
    )
    if report.interrupted:
        raise typer.Exit(130)
    if not report.switched:
        raise typer.Exit(1)


@app.command()
def search(
    text: Annotated[str | None, typer.Argument(help="What the moment shows.")] = None,
    index_dir: IndexOption = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Moments to show.", show_default="as in config.toml"),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="File with one query a line (- for standard input); needs --json."),
    ] = None,
    folders: Annotated[
        list[Path] | None,
        typer.Option("--in", help="Only videos at or below this folder; several: any of them."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="Only videos with this label; several: all of them."),
    ] = None,
    without_labels: Annotated[
        list[str] | None, typer.Option("--not-label", help="Only videos without this label.")
    ] = None,
    after: Annotated[
        datetime | None,
        typer.Option(formats=[_DAY], help="Only files changed last on this day or later."),
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=[_DAY], help="Only files changed last on this day or earlier."),
    ] = None,
    longer: Annotated[
        float | None, typer.Option(min=0, help="Only videos of so many seconds or more.")
    ] = None,
    shorter: Annotated[
        float | None, typer.Option(min=0, help="Only videos of less than so many seconds.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find the moments that show what a sentence says."""
    if (text is None) == (queries is None):
        raise typer.BadParameter("give either a sentence or --queries FILE")
    if queries is not None and not as_json:
        raise typer.BadParameter("--queries prints one JSON object a line: add --json")
    from scanonce.search.engine import SearchEngine
    from scanonce.search.filters import Filter
    from scanonce.ui.config import read_config

    settings = read_config(config)
    only = Filter(
        folders=_absolute(folders),
        labels=frozenset(labels or ()),
        without_labels=frozenset(without_labels or ()),
        recorded_after=after.date() if after else None,
        recorded_before=before.date() if before else None,
        min_seconds=longer,
        max_seconds=shorter,
    )
    texts = [text] if text is not None else _read_queries(queries)
    with SearchEngine.open(
        settings.index_path(index_dir), settings=settings.search, models=settings.models
    ) as engine:
        for start in range(0, len(texts), _QUERY_BATCH):
            batch = texts[start : start + _QUERY_BATCH]
            for result in engine.search_many(batch, top=top, within=only):
                _show(result, only, as_json=as_json)


_QUERY_BATCH = 64  # queries encoded and looked up together


def _absolute(paths: list[Path] | None) -> tuple[Path, ...]:
    """As the catalogue has them: links are not followed."""
    return tuple(Path(os.path.abspath(path.expanduser())) for path in paths or ())


def _read_queries(path: Path | None) -> list[str]:
    from scanonce.storage.errors import QueryError

    try:
        content = sys.stdin.read() if str(path) == "-" else Path(str(path)).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(
            f"queries {path} cannot be read: {error}. One query a line, UTF-8."
        ) from error
    return [line.strip() for line in content.splitlines() if line.strip()]


def _show(result: "SearchResult", only: "Filter", *, as_json: bool) -> None:
    from rich.console import Console

    from scanonce.ui.views import moments_table, result_json, timings_text

    if as_json:
        shown = None if only.passes_all else only
        print(json.dumps(result_json(result, shown), ensure_ascii=False))
        return
    console = Console()
    if result.num_videos == 0:
        console.print("No video passes this filter, so nothing was looked at.")
    elif result.no_good_match:
        console.print(f"No good match for [bold]{result.query!r}[/] in this library.")
        if result.moments:
            console.print("Closest, probably not what you mean:")
    if result.moments:
        console.print(moments_table(result.moments))
    console.print(f"[dim]{timings_text(result)}[/]")


@app.command()
def label(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Videos, or folders of them.", show_default="shows all labels"),
    ] = None,
    add: Annotated[list[str] | None, typer.Option(help="Give them this label.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Take this label from them.")] = None,
    index_dir: IndexOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Label videos, to filter searches by; without --add and --remove, show their labels."""
    if (add or remove) and not paths:
        raise typer.BadParameter(
            "name the videos, or folders of them, that --add or --remove is for"
        )
    from scanonce.ui.commands.label import run_label
    from scanonce.ui.config import read_config

    run_label(
        _absolute(paths),
        read_config(config).index_path(index_dir),
        add=add or [],
        remove=remove or [],
        as_json=as_json,
    )


@app.command()
def localise(
    index_dir: IndexOption = None,
    localiser: Annotated[
        str | None,
        typer.Option(
            help='"bundled", a folder, a published .pth file, or "training-free".',
            show_default="the one the index has",
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Derive everything anew, also what is there.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Give an index a trained localiser, or another one, from what is stored: no video is decoded."""
    from scanonce.ui.commands.index import run_localise
    from scanonce.ui.config import read_config

    settings = read_config(config)
    report = run_localise(
        settings.index_path(index_dir), localiser=localiser, rebuild=rebuild, config=settings
    )
    if report.interrupted:
        raise typer.Exit(130)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="Published checkpoint (a file), or an encoder (a folder).")
    ],
    out: Annotated[Path, typer.Argument(help="What to write: a folder, or a file.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Hub id, or folder with the tokenizer.json of a CLIP.",
            show_default="openai/clip-vit-base-patch32",
        ),
    ] = None,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Frames of a clip the head was trained on.")
    ] = 12,
) -> None:
    """Convert a published CLIP4Clip checkpoint into an encoder, or an encoder into one."""
    from scanonce.ui.commands.convert import run_convert

    run_convert(source, out, tokenizer=tokenizer, max_frames=max_frames)


@app.command()
def tune(
    index_dir: IndexOption = None,
    target_recall: Annotated[
        float,
        typer.Option(min=0.5, max=0.999, help="Share of the ten best clips that are to be found."),
    ] = 0.95,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help="File with sentences as people ask them, one a line.",
            show_default="512 of every day",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure a large index on its own clips, and take the cheapest settings that find enough."""
    from rich.console import Console

    from scanonce.ui.commands.tune import read_sentences, run_tune
    from scanonce.ui.config import read_config

    settings = read_config(config)
    run_tune(
        settings.index_path(index_dir),
        target_recall,
        Console(),
        sentences=read_sentences(sentences) if sentences else None,
        models=settings.models,
    )


@app.command()
def status(
    index_dir: IndexOption = None, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """What is indexed, with what, and what failed."""
    from scanonce.ui.commands.status import show_status
    from scanonce.ui.config import read_config
    from scanonce.ui.views import status_json

    settings = read_config(config)
    library = settings.library(settings.index_path(index_dir))
    found = status_json(library.root, library.status())
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show_status(found)


@app.command()
def forget(
    path: Annotated[Path, typer.Argument(help="A folder or file that was indexed.")],
    index_dir: IndexOption = None,
    config: ConfigOption = None,
) -> None:
    """Forget a folder or file: it is no longer found. The videos themselves are never touched."""
    from scanonce.ui.commands.index import run_forget
    from scanonce.ui.config import read_config

    settings = read_config(config)
    run_forget(path, settings.index_path(index_dir), settings.storage)


@app.command()
def verify(
    index_dir: IndexOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read all values, and into the video files.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Compare files, catalogue, features and vectors, and name every difference."""
    from scanonce.ui.commands.upkeep import run_verify
    from scanonce.ui.config import read_config

    settings = read_config(config)
    index = settings.index_path(index_dir)
    raise typer.Exit(run_verify(index, full=full, config=settings, as_json=as_json))


@app.command()
def repair(
    index_dir: IndexOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Look as `verify --full` does, before and after.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Make again what can be derived: vectors, anchors, features. Nothing else is touched."""
    from scanonce.ui.commands.upkeep import run_repair
    from scanonce.ui.config import read_config

    settings = read_config(config)
    index = settings.index_path(index_dir)
    raise typer.Exit(run_repair(index, dry_run=dry_run, full=full, config=settings))


@app.command()
def backup(
    folder: Annotated[
        Path, typer.Argument(help="Where the backup is kept; made or brought up to date.")
    ],
    index_dir: IndexOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy the index to a folder, while it is searched and written."""
    from scanonce.ui.commands.upkeep import run_backup
    from scanonce.ui.config import read_config

    settings = read_config(config)
    target = folder.expanduser().absolute()
    raise typer.Exit(run_backup(settings.index_path(index_dir), target, config=settings))


@app.command()
def restore(
    backup_dir: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="A folder that `scanonce backup` made.")
    ],
    index_dir: IndexOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give up the index that is there.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Put a backup in the place of an index, in one step."""
    from scanonce.ui.commands.upkeep import run_restore
    from scanonce.ui.config import read_config

    settings = read_config(config)
    source = backup_dir.expanduser().absolute()
    index = settings.index_path(index_dir)
    raise typer.Exit(run_restore(source, index, replace=replace, config=settings))


@app.command("ui")
def show_ui(
    index_dir: IndexOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; any but this machine's own lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port, or the next free one.")
    ] = DEFAULT_PORT,
    token: Annotated[
        str | None,
        typer.Option(help='Ask for this token, 12 characters or more; "auto" makes one.'),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    config: ConfigOption = None,
) -> None:
    """Show the library in a browser: search, look, cut."""
    from scanonce.ui.config import read_config
    from scanonce.ui.server.server import serve

    index = read_config(config).index_path(index_dir)
    serve(index, host=host, port=port, token=token, open_browser=browser, config=config)


train = typer.Typer(
    no_args_is_help=True,
    help="Train on videos of your own.",
    rich_markup_mode="rich",
)
app.add_typer(train, name="train")


@train.command("clip")
def train_clip(
    captions: Annotated[
        Path, typer.Argument(help="Captions: .csv, .jsonl, or the file of a benchmark.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder the videos lie in.", show_default="that of the captions"),
    ] = None,
    benchmark: Annotated[
        str, typer.Option(help='Whose file the captions are; "scanonce": your own.')
    ] = "scanonce",
    encoder: Annotated[
        str | None,
        typer.Option(
            help='To start from: hub id, local folder, or "bundled".',
            show_default="as in config.toml",
        ),
    ] = None,
    head: Annotated[
        HeadName, typer.Option(help="What makes a vector of the frames; tight only re-ranks.")
    ] = Recipe.head,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the clips.")] = Recipe.epochs,
    batch: Annotated[
        int, typer.Option(min=1, help="Clips that a process embeds at once.")
    ] = Recipe.batch,
    accumulate: Annotated[
        int, typer.Option(min=1, help="So many times more clips compared, in the same memory.")
    ] = Recipe.accumulate,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the head.")] = Recipe.lr,
    encoder_lr: Annotated[
        float, typer.Option(min=0, help="Learning rate of the encoder; 0 leaves it as it is.")
    ] = Recipe.encoder_lr,
    freeze_layers: Annotated[
        int, typer.Option(min=0, help="First blocks of both towers that stay as they are.")
    ] = Recipe.freeze_layers,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory, more time.")
    ] = False,
    precision: Annotated[
        Precision,
        typer.Option(help="Of the encoder's arithmetic; auto: bfloat16 where it is quick."),
    ] = Recipe.precision,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Frames of a clip at most, one a second.")
    ] = Recipe.max_frames,
    augment: Annotated[
        bool, typer.Option(help="Shift frames and change their light a little.")
    ] = Recipe.augment,
    validation: Annotated[
        Path | None,
        typer.Option(help="Captions to validate on.", show_default="a share of the videos"),
    ] = None,
    validation_share: ValidationShareOption = Recipe.validation_share,
    seed: SeedOption = Recipe.seed,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for frames and the state of the run.", show_default="OUT.work"),
    ] = None,
    resume: ResumeOption = False,
    minutes_cap: MinutesCapOption = None,
    config: ConfigOption = None,
) -> None:
    """Fine-tune an encoder on videos with captions, as CLIP4Clip does; `torchrun` spreads it over GPUs."""
    recipe = Recipe(
        head=head,
        max_frames=max_frames,
        epochs=epochs,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        encoder_lr=encoder_lr,
        freeze_layers=freeze_layers,
        checkpointing=checkpointing,
        precision=precision,
        augment=augment,
        seed=seed,
        validation_share=validation_share,
    )
    from scanonce.ui.commands.train_clip import run_train_clip
    from scanonce.ui.config import read_config

    models = read_config(config).models
    run_train_clip(
        captions,
        out,
        recipe,
        encoder=encoder or models.encoder,
        videos=videos,
        benchmark=benchmark,
        validation=validation,
        work=work,
        resume=resume,
        minutes_cap=minutes_cap,
        device=models.device,
    )


@train.command("soonet")
def train_soonet(
    annotations: Annotated[
        Path, typer.Argument(help="Sentences and their moments: .jsonl, .csv, or of a benchmark.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the localiser.")],
    index_dir: IndexOption = None,
    benchmark: Annotated[
        str, typer.Option(help='Whose file the annotations are; "scanonce": your own.')
    ] = "scanonce",
    validation: Annotated[
        Path | None,
        typer.Option(help="Annotations to validate on.", show_default="a share of the videos"),
    ] = None,
    validation_share: ValidationShareOption = 0.1,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes over the sentences.", show_default="20, 1,500 steps at least"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Instead of epochs.", show_default="as epochs say")
    ] = None,
    libraries_per_step: Annotated[
        int | None,
        typer.Option(min=1, help="Small libraries that make a step.", show_default="one a process"),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Highest learning rate.", show_default="by the width"),
    ] = None,
    begin_with: Annotated[
        str | None,
        typer.Option(
            "--from",
            help='Localiser to go on from: "bundled", a folder, or a published .pth file.',
            show_default="new weights",
        ),
    ] = None,
    seed: SeedOption = 0,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for curves and the state of the run.", show_default="OUT.work"),
    ] = None,
    resume: ResumeOption = False,
    minutes_cap: MinutesCapOption = None,
    config: ConfigOption = None,
) -> None:
    """Train a localiser on an index and annotated moments, from what is stored: no video is decoded."""
    from scanonce.training.localiser.from_index import Choices
    from scanonce.ui.commands.train_soonet import run_train_soonet
    from scanonce.ui.config import read_config

    settings = read_config(config)
    run_train_soonet(
        annotations,
        out,
        settings.index_path(index_dir),
        Choices(
            benchmark=benchmark,
            validation=validation,
            validation_share=validation_share,
            epochs=epochs,
            steps=steps,
            libraries_per_step=libraries_per_step,
            learning_rate=lr,
            seed=seed,
            begin_with=begin_with,
            resume=resume,
            minutes_cap=float("inf") if minutes_cap is None else minutes_cap,
        ),
        work=work,
        models=settings.models,
    )


@app.command()
def doctor(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Check this installation: packages, devices, weights, decoders, and a small run of everything."""
    from scanonce.ui.commands.doctor import examine, show_findings
    from scanonce.ui.config import read_config

    findings = examine(read_config(config))
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], ensure_ascii=False))
    else:
        show_findings(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command("eval")
def evaluate(
    benchmark: Annotated[
        str,
        typer.Option(
            help="msrvtt, qvhighlights, charades, tvr, mad, ego4d, activitynet, didemo; scanonce: a file of your own."
        ),
    ],
    annotations: Annotated[
        Path,
        typer.Option(help="Sentences with their right answers, as the benchmark publishes them."),
    ],
    predictions: Annotated[
        Path | None, typer.Option(help="Evaluate the answers in this file, not an index.")
    ] = None,
    index_dir: IndexOption = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="With --predictions: only sentences about videos in this folder."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
    write_predictions: Annotated[
        Path | None, typer.Option(help="Write the answers of the index to this file.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure how well sentences find their moments: a benchmark's own figures and the library task."""
    if predictions is not None and (index_dir is not None or write_predictions is not None):
        raise typer.BadParameter(
            "--predictions holds the answers: leave out --index and --write-predictions"
        )
    if videos is not None and predictions is None:
        raise typer.BadParameter("--videos goes with --predictions: an index knows its videos")
    from scanonce.ui.commands.eval import run_eval
    from scanonce.ui.config import read_config

    settings = read_config(config)
    run_eval(
        benchmark,
        annotations,
        index_dir=settings.index_path(index_dir),
        predictions=predictions,
        videos=videos,
        json_out=json_out,
        predictions_out=write_predictions,
        settings=settings.search,
        models=settings.models,
    )


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo is kept.")] = Path("demo"),
    films: Annotated[int, typer.Option(min=1, max=200, help="Films to render.")] = 12,
) -> None:
    """Render a few films, index them, and find moments by sentences."""
    from scanonce.ui.commands.demo import run_demo

    run_demo(folder, films)


def main() -> None:
    """The entry point: errors a person can meet are told in a sentence, not by a traceback."""
    try:
        app()
    except ScanonceError as error:
        print(f"scanonce: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `scanonce search ... | head`
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
