"""`scanonce doctor`."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scanonce.ui.commands.options import ConfigOption, JsonOption
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.reports import sentence
from scanonce.ui.views import size_text

if TYPE_CHECKING:
    from scanonce.ui.config import Config


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, in the documented schema (docs/cli.md)."""

    name: str
    ok: bool
    detail: str
    """The facts, and the next step if it is not ok."""


def doctor(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Check this installation: packages, devices, weights, decoders, and a small run of the main parts."""
    from scanonce.ui.config import read_config

    findings = examine(read_config(config))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(config: "Config") -> list[Finding]:
    """Run all checks, those first on which others depend."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("packages", _packages),
        ("faiss", _faiss),
        ("device", lambda: _device(config)),
        ("decoders", lambda: _decoders(config)),
        ("sandbox", _sandbox),
        ("encoder", lambda: _encoder(config)),
        ("index folder", lambda: _index_folder(config)),
        ("encoder of the index", lambda: _encoder_of_index(config)),
        ("self-check", _self_check),
    ]
    return [_run(name, check) for name, check in checks]


def _show(findings: list[Finding]) -> None:
    console = new_console()
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[red]fail[/]"
        console.print(f"{mark} [bold]{finding.name}[/]: {verbatim(finding.detail)}", soft_wrap=True)


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except (ImportError, OSError) as error:
        return Finding(name, False, str(error))
    except Exception as error:  # the other checks say what works
        return Finding(name, False, sentence(error))


def _packages() -> str:
    import importlib.metadata

    names = ("torch", "transformers", "sqlalchemy", "av", "numpy")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"Python {platform.python_version()}, {found}"


def _faiss() -> str:
    import importlib.metadata

    installed = {}
    for name in ("faiss-cpu", "faiss-gpu"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(installed) == 2:
        raise ImportError(
            "faiss-cpu and faiss-gpu are both installed and have overwritten each other's files: "
            "pip uninstall -y faiss-cpu faiss-gpu, then pip install one of them"
        )
    if not installed:
        raise ImportError(
            'neither is installed: pip install "scanonce[cpu]" (or "scanonce[gpu]" with an NVIDIA GPU)'
        )
    return ", ".join(f"{name} {version}" for name, version in installed.items())


def _device(config: "Config") -> str:
    from scanonce.models.runtime import num_cores, pick_device, pick_dtype

    device = pick_device(config.models.device)
    dtype = str(pick_dtype(device, config.models.dtype)).removeprefix("torch.")
    return f"{device}, weights in {dtype}, {num_cores()} cores"


def _decoders(config: "Config") -> str:
    import av

    wanted = ("h264", "hevc", "vp9", "av1", "mpeg4", "vp8", "prores", "mpeg2video")
    missing = [name for name in wanted if name not in av.codecs_available]
    if missing:
        raise ImportError(
            f"PyAV cannot decode {', '.join(missing)}: reinstall it with pip install --force-reinstall av"
        )
    try:
        import decord
    except ImportError as error:
        if config.indexer.decoder == "decord":
            raise ImportError('decord is missing: pip install "scanonce[decord]"') from error
        return f"PyAV {av.__version__}: {', '.join(wanted)}"
    return f"PyAV {av.__version__} and decord {decord.__version__}: {', '.join(wanted)}"


def _sandbox() -> str:
    """Let a decoder's process try what it should not be able to do; other systems and old kernels allow more."""
    from scanonce.media.trial import ATTEMPTS, attempt_all

    trial = attempt_all()
    refused = [name for name in ATTEMPTS if name not in trial.possible]
    parts = [f"a decoder cannot {', '.join(refused)}"] if refused else []
    if trial.possible:
        parts.append(
            f"a decoder that a hostile file has taken over can {', '.join(trial.possible)}"
        )
    if trial.missing:
        parts.append(f"missing: {', '.join(trial.missing)}")
    return "; ".join(parts)


def _encoder(config: "Config") -> str:
    from scanonce.models.encoders.hub import find_folder, with_width
    from scanonce.models.offline_weights import CONCEPTS_NAME

    name = with_width(config.models.encoder, config.models.dim)
    if name == CONCEPTS_NAME:
        return _checked(name, config)
    folder = find_folder(name)
    return f"{_checked(name, config)}, on this machine ({folder})"


def _encoder_of_index(config: "Config") -> str:
    from scanonce.storage.manifest import read_manifest

    layout = config.layout(None)
    if not layout.manifest.exists():
        return "no index yet"
    manifest = read_manifest(layout)
    checked = _checked(manifest.encoder, config, fingerprint=manifest.fingerprint)
    return f"{layout.root} was made with {checked}"


def _checked(name: str, config: "Config", *, fingerprint: str | None = None) -> str:
    """Encode an image and a few sentences with an encoder, and return its name and what was found."""
    from scanonce.models.encoders.check import check_named
    from scanonce.storage.errors import EncoderError

    encoder = check_named(name, config.models)
    if fingerprint not in (None, encoder.fingerprint):
        raise EncoderError(
            f"{name} has other weights or another configuration than when the index was made. Bring the old files "
            "back, or run scanonce reindex."
        )
    return f"{name}: encodes images and texts to {encoder.dim} numbers"


def _index_folder(config: "Config") -> str:
    path = config.index_path(None)
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        if existing == path:
            return f"{path}, read-only: it can be searched, but not changed"
        raise OSError(
            f"{path} cannot be made, because {existing} cannot be written; index_dir in config.toml can name another "
            "folder"
        )
    free = shutil.disk_usage(existing).free
    if free < 1e9:
        raise OSError(
            f"{path}: only {size_text(free)} free; index_dir in config.toml can name another disk"
        )
    return f"{path}, {size_text(free)} free"


def _self_check() -> str:
    """Check that the bundled encoder distinguishes two frames, and that the vector index finds its own clips."""
    import numpy as np

    from scanonce.models.encoders.hub import BUNDLED_NAME
    from scanonce.models.encoders.load import load_encoder
    from scanonce.storage.settings import StorageSettings
    from scanonce.storage.vectors.publish import open_library, publish

    encoder = load_encoder(BUNDLED_NAME)
    frames = np.zeros((2, 90, 160, 3), np.uint8)
    frames[1] = 255
    features = encoder.encode_frames(frames)
    if not np.isfinite(features).all() or np.allclose(features[0], features[1]):
        raise OSError(
            "the bundled encoder computes the same features for two frames: reinstall torch and transformers"
        )
    clips = np.eye(8, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        vectors = Path(folder) / "vectors"
        publish(vectors, [1], lambda _: clips, dim=8, settings=StorageSettings())
        library = open_library(vectors, dim=8, live_videos=[1], load_clips=lambda _: clips)
        _, ids = library.search(clips, 1)
    if ids[:, 0].tolist() != [1 << 20 | row for row in range(8)]:
        raise OSError("the vector index does not find its own clips: reinstall faiss")
    return "encoder and vector index work"
