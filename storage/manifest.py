"""The manifest: the encoder and settings an index was made with."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from scanonce.storage.clips import ClipGrid
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.files import write_whole
from scanonce.storage.layout import IndexLayout, check_anchors
from scanonce.storage.untrusted import MAX_JSON_BYTES, DamagedFile, parse_json, read_bytes

SCHEMA_VERSION = 1

MAX_DIM = 1 << 16
"""More than any encoder has."""

_SETTINGS = ("sampling", "sample_fps", "clip_scales_seconds", "clip_stride_ratio")
"""Settings of the indexer that an index is tied to."""

Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The encoder, localiser and settings that an index was made with."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )

    encoder: str
    """Name by which the encoder was loaded."""
    fingerprint: str
    """Digest of the encoder's weights and configuration."""
    dim: int
    sampling: str
    """``uniform`` or ``keyframes``."""
    sample_fps: float
    """Frames per second; with key frames, the most that are kept."""
    clip_scales_seconds: tuple[float, ...]
    clip_stride_ratio: float
    localiser: str | None = None
    """Name by which the trained localiser was loaded; None: moments are found without one."""
    anchors: str | None = None
    """Folder below ``anchors/`` with its anchors: the prefix of its fingerprint, and a number that counts rebuilds."""
    head: str | None = None
    """Digest of the head that pools the frames of a clip; None: clips are means of frames."""
    reranker: str | None = None
    """Digest of the head that re-ranks moments; None: there is none. An index has at most one head."""
    exact_times: bool = False
    """Whether the stored frames are those on screen at their targets (`storage.targets`). False if the index was made
    by a version before 0.3: where a picture is held, some of its times are wrong until `scanonce reindex`."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        ClipGrid(self.clip_scales_seconds, self.clip_stride_ratio)
        if self.dim < 1 or self.dim > MAX_DIM:
            raise ValueError(f"dim must be 1 to {MAX_DIM}; got {self.dim}")
        if not 0 < self.sample_fps < math.inf:
            raise ValueError(f"sample_fps must be above 0; got {self.sample_fps}")
        if self.sampling not in ("uniform", "keyframes"):
            raise ValueError(f"sampling must be uniform or keyframes; got {self.sampling!r}")

    @property
    def keeps_head(self) -> bool:
        """Whether the index keeps files in `IndexLayout.head`."""
        return self.head is not None or self.reranker is not None

    def settle(
        self, asked: Settings, typed: Mapping[str, object] = MappingProxyType({})
    ) -> Settings:
        """Return settings of the indexer with the sampling and the clips of this index.

        An index keeps these, as it keeps its encoder: other values in a configuration are for new indexes.

        Args:
            asked: the settings of the configuration.
            typed: the settings that were given explicitly for this run, by name.

        Raises:
            ManifestMismatch: one of ``typed`` differs from that of the index.
        """
        own = {name: getattr(self, name) for name in _SETTINGS}
        different = [name for name, value in typed.items() if name in own and own[name] != value]
        if different:
            raise _mismatch("the index", different, own, typed)
        return asked.model_copy(update=own)

    @property
    def grid(self) -> ClipGrid:
        """The windows of the clips."""
        return ClipGrid(self.clip_scales_seconds, self.clip_stride_ratio)


def read_manifest(layout: IndexLayout) -> Manifest:
    """Read the manifest of an existing index.

    Raises:
        IndexDirectoryError: there is no index, or its manifest cannot be read.
        ManifestMismatch: it was written by a newer version.
    """
    try:
        content = read_bytes(layout.manifest, MAX_JSON_BYTES)
        values = parse_json(content)
    except FileNotFoundError as error:
        raise IndexDirectoryError(
            f"there is no index at {layout.root}. Make one: scanonce index VIDEOS --index {layout.root}"
        ) from error
    except (OSError, DamagedFile) as error:
        raise IndexDirectoryError(
            f"{layout.manifest} cannot be read ({error}). Restore the file from a backup, or index into another folder."
        ) from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise ManifestMismatch(
            f"the index at {layout.root} has schema version {version}, this program reads {SCHEMA_VERSION}. "
            "Use the program version that made it, or index into another folder with --index."
        )
    try:
        manifest = _MANIFEST.validate_json(content)
    except ValidationError as error:
        raise IndexDirectoryError(
            f"{layout.manifest} is not a manifest of ours ({_reasons(error)}). "
            "Restore it from a backup, or index into another folder."
        ) from error
    if manifest.anchors is not None:
        check_anchors(manifest.anchors)
    return manifest


_MANIFEST = TypeAdapter(Manifest)


def _reasons(error: ValidationError) -> str:
    found = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
    return "; ".join(": ".join(filter(None, each)) for each in found)[:300]


def check_encoder(layout: IndexLayout, manifest: Manifest, name: str, fingerprint: str) -> None:
    """Refuse an encoder that is not the one the index was made with.

    Args:
        layout: layout of the index, for the message.
        manifest: manifest of the index.
        name: name by which the encoder was loaded.
        fingerprint: fingerprint of the loaded encoder; the weights under a name may change.

    Raises:
        ManifestMismatch: the fingerprints differ.
    """
    if fingerprint != manifest.fingerprint:
        raise ManifestMismatch(
            f"the index at {layout.root} was made with encoder {manifest.encoder} "
            f"({manifest.fingerprint[:12]}), loaded is {name} ({fingerprint[:12]}). "
            "Put the same weights back, or run `scanonce reindex`."
        )


def create_or_check(layout: IndexLayout, wanted: Manifest, head_files: Sequence[Path] = ()) -> None:
    """Write the manifest of a new index, or check that an existing index has the same settings.

    Encoders are compared by fingerprint: the same weights in another folder are the same encoder. Localisers are not
    compared: only `scanonce localise` changes that of an index. An index without a re-ranker gets that of its encoder,
    since nothing stored depends on it; indexes of earlier versions have none. An index of inexact times gets new videos
    too; their times are exact.

    Args:
        layout: the index directory.
        wanted: the manifest of a new index.
        head_files: files of the encoder's head, whose digest ``wanted`` has. The index keeps a copy, which is written
            again if it is missing or damaged.

    Raises:
        ManifestMismatch: a setting differs; the message has every such setting with both values, and the next step.
    """
    if not layout.manifest.exists():
        _keep_head(layout, head_files)  # before the manifest, which has its digest
        write_manifest(layout, wanted)
        return
    stored = asdict(read_manifest(layout))
    asked = asdict(wanted)
    gains_reranker = stored["reranker"] is None and wanted.reranker is not None
    not_compared = {"encoder", "localiser", "anchors", "exact_times"}
    if gains_reranker:
        not_compared.add("reranker")
    names = [name for name in asked if name not in not_compared and stored[name] != asked[name]]
    if names:
        if "fingerprint" in names:
            names.insert(0, "encoder")
        option = f" --index {layout.root}"
        raise _mismatch(f"the index at {layout.root}", names, stored, asked, option)
    _keep_head(layout, head_files)
    if gains_reranker:
        write_manifest(layout, replace(read_manifest(layout), reranker=wanted.reranker))


def _mismatch(
    index: str,
    names: Sequence[str],
    stored: Mapping[str, object],
    asked: Mapping[str, object],
    option: str = "",
) -> ManifestMismatch:
    """Return the error that has the settings that differ, with both values, and the next step."""
    return ManifestMismatch(
        f"{index} was made with other settings:",
        *(f"  {name}: the index has {stored[name]}, asked for is {asked[name]}" for name in names),
        "Leave them as the index has them, or scan everything again while searches go on: "
        f"scanonce reindex{option}",
    )


def _keep_head(layout: IndexLayout, files: Sequence[Path]) -> None:
    for path in files:
        content = path.read_bytes()
        kept = layout.head / path.name
        if not kept.exists() or kept.read_bytes() != content:
            write_whole(kept, lambda file, content=content: file.write(content))  # type: ignore[misc]


def write_manifest(layout: IndexLayout, manifest: Manifest) -> None:
    """Write the manifest. It replaces an earlier one at once: a reader sees one of them whole."""
    content = json.dumps(asdict(manifest), indent=2) + "\n"
    write_whole(layout.manifest, lambda file: file.write(content.encode()))
