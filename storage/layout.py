"""The paths of one index directory, and the manifest that says what it was made with.

manifest.json                    what made it; any mismatch with what is asked for is an error
catalog.sqlite                   the truth
features/ab/<uid>.safetensors    frame features of one video
thumbnails/ab/<uid>.safetensors  small pictures of one video
anchors/<localiser>/             what the trained localiser computed of each video, derived from the features
vectors/<generation>/            the vector index, derived from the features
head/                            a copy of its encoder's head, if that has one: it pools clips, or re-ranks moments
writer.lock  writer.json         who writes it now (storage/writer.py)

After `scanonce reindex` or `restore` all but the last line lies in a folder data-<n>, which the file ``current`` names:
writing that name is the switch from one whole index to another.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Self

from scanonce.storage.clips import ClipGrid
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch

SCHEMA_VERSION = 1

_CURRENT, _DATA = "current", "data-"


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """Where things lie under one index directory."""

    root: Path
    """The index directory, as people name it."""
    data: str = ""
    """Folder in it that holds the index; empty: it lies in the directory itself."""

    @classmethod
    def of(cls, root: Path) -> Self:
        """The layout in use now at an index directory, which need not exist yet.

        Raises:
            IndexDirectoryError: the file that names it is damaged.
        """
        try:
            data = (root / _CURRENT).read_text("utf-8").strip()
        except FileNotFoundError:
            return cls(root)
        except (OSError, ValueError) as error:
            raise IndexDirectoryError(f"{root / _CURRENT} cannot be read: {error}") from error
        if not data.startswith(_DATA) or not data.removeprefix(_DATA).isdecimal():
            raise IndexDirectoryError(
                f"{root / _CURRENT} should name a folder such as {_DATA}1; it says {data[:50]!r}. "
                "Write the name of the newest such folder into it, or restore a backup."
            )
        return cls(root, data)

    @property
    def folder(self) -> Path:
        """What holds everything below."""
        return self.root / self.data

    @property
    def number(self) -> int:
        """How many indexes have been in its place before."""
        return int(self.data.removeprefix(_DATA) or 0)

    @property
    def beside(self) -> "IndexLayout":
        """Where the index that will take this one's place grows."""
        return IndexLayout(self.root, f"{_DATA}{self.number + 1}")

    @property
    def manifest(self) -> Path:
        """What the index was made with."""
        return self.folder / "manifest.json"

    @property
    def catalog(self) -> Path:
        """The SQLite catalogue."""
        return self.folder / "catalog.sqlite"

    @property
    def features(self) -> Path:
        """The feature store."""
        return self.folder / "features"

    @property
    def thumbnails(self) -> Path:
        """The thumbnail store."""
        return self.folder / "thumbnails"

    @property
    def anchors(self) -> Path:
        """A folder for each localiser; the manifest names the one in use."""
        return self.folder / "anchors"

    @property
    def vectors(self) -> Path:
        """The generations of the vector index."""
        return self.folder / "vectors"

    @property
    def head(self) -> Path:
        """A copy of the files of the encoder's head, so that nothing else needs its folder; the manifest has its
        digest.
        """
        return self.folder / "head"


def index_root(folder: Path) -> Path:
    """The index directory whose contents lie in a folder: itself, or after a switch its parent."""
    is_data = folder.name.startswith(_DATA) and (folder.parent / _CURRENT).exists()
    return folder.parent if is_data else folder


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index was made with."""

    encoder: str
    """Name by which the encoder was loaded."""
    fingerprint: str
    """Digest of its weights and configuration."""
    dim: int
    sampling: str
    """``uniform`` or ``keyframes``."""
    sample_fps: float
    """Frames per second; in key-frame mode the most that are kept."""
    clip_scales_seconds: tuple[float, ...]
    clip_stride_ratio: float
    localiser: str | None = None
    """Name by which the trained localiser was loaded; None: moments are found without one."""
    anchors: str | None = None
    """Folder under ``anchors/`` with what it computed: its fingerprint, and a number that counts rebuilds."""
    head: str | None = None
    """Digest of the head that pools the frames of its clips; None: they are means."""
    reranker: str | None = None
    """Digest of the head that re-ranks the moments found; None: there is none. An index has one head at most."""
    schema_version: int = SCHEMA_VERSION

    @property
    def keeps_head(self) -> bool:
        """Whether files belong into `IndexLayout.head`."""
        return self.head is not None or self.reranker is not None

    @property
    def grid(self) -> ClipGrid:
        """The windows of its clips."""
        return ClipGrid(self.clip_scales_seconds, self.clip_stride_ratio)


def read_manifest(layout: IndexLayout) -> Manifest:
    """The manifest of an existing index.

    Raises:
        IndexDirectoryError: there is no index, or it cannot be read.
        ManifestMismatch: it was written by a newer version.
    """
    try:
        values = json.loads(layout.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise IndexDirectoryError(
            f"there is no index at {layout.root}. Make one: scanonce index VIDEOS --index {layout.root}"
        ) from error
    except (OSError, ValueError) as error:
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
        return Manifest(**{**values, "clip_scales_seconds": tuple(values["clip_scales_seconds"])})
    except (KeyError, TypeError) as error:
        raise IndexDirectoryError(
            f"{layout.manifest} is not a manifest of ours ({error}). "
            "Restore it from a backup, or index into another folder."
        ) from error


def check_encoder(layout: IndexLayout, manifest: Manifest, name: str, fingerprint: str) -> None:
    """Refuses an encoder that is not the one the index was made with.

    Args:
        layout: of the index, which is named.
        manifest: of the index.
        name: by which the encoder was loaded.
        fingerprint: of what was loaded: under the same name there may be other weights by now.

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
    """Writes the manifest of a new index, or checks that an existing one was made with the same settings.

    The encoder is told by its fingerprint: the same weights in another folder are the same encoder. The localiser is
    not compared: an index has the one it has until `scanonce localise` gives it another. One made before re-rankers
    were kept takes that of its encoder: nothing stored depends on it.

    Args:
        layout: the index directory.
        wanted: what it is to be made with.
        head_files: of the encoder's head, whose digest ``wanted`` names. The index keeps a copy, which is made anew
            where it is missing or damaged.

    Raises:
        ManifestMismatch: names every setting that differs, both its values and the way out.
    """
    if not layout.manifest.exists():
        _keep_head(layout, head_files)  # first: the manifest names it
        write_manifest(layout, wanted)
        return
    stored = asdict(read_manifest(layout))
    asked = asdict(wanted)
    gains_reranker = stored["reranker"] is None and wanted.reranker is not None
    told_otherwise = {"encoder", "localiser", "anchors"}
    if gains_reranker:
        told_otherwise.add("reranker")
    names = [name for name in asked if name not in told_otherwise and stored[name] != asked[name]]
    if names:
        if "fingerprint" in names:
            names.insert(0, "encoder")
        lines = [
            f"  {name}: the index has {stored[name]}, asked for is {asked[name]}" for name in names
        ]
        raise ManifestMismatch(
            "\n".join([f"the index at {layout.root} was made with other settings:", *lines])
            + "\nEither set these back (config.toml, --encoder), or have everything scanned anew while searches go on: "
            f"scanonce reindex --index {layout.root}"
        )
    _keep_head(layout, head_files)
    if gains_reranker:
        write_manifest(layout, replace(read_manifest(layout), reranker=wanted.reranker))


def _keep_head(layout: IndexLayout, files: Sequence[Path]) -> None:
    for path in files:
        content = path.read_bytes()
        kept = layout.head / path.name
        if not kept.exists() or kept.read_bytes() != content:
            write_whole(kept, lambda file, content=content: file.write(content))  # type: ignore[misc]


def switch(layout: IndexLayout) -> None:
    """From here on the index directory is this one; readers follow with their next query. Removes what it replaces.

    Raises:
        IndexDirectoryError: it cannot be written; the old one is still in use.
    """
    write_whole(layout.root / _CURRENT, lambda file: file.write(layout.data.encode()))
    remove_superseded(layout)


def remove_superseded(layout: IndexLayout) -> None:
    """Removes what ``layout`` has taken the place of; nothing where it is not the one in use. A reader keeps what it
    has mapped.
    """
    if not layout.data or IndexLayout.of(layout.root) != layout:
        return
    remove_contents(IndexLayout(layout.root))
    number = int(layout.data.removeprefix(_DATA))
    for folder in layout.root.glob(f"{_DATA}*"):
        older = folder.name.removeprefix(_DATA)
        if older.isdecimal() and int(older) < number:
            shutil.rmtree(folder, ignore_errors=True)


def remove_contents(layout: IndexLayout) -> None:
    """Removes a whole index, but not what else lies in its folder."""
    for path in (layout.manifest, *layout.folder.glob(f"{layout.catalog.name}*")):
        path.unlink(missing_ok=True)
    stored = (layout.features, layout.thumbnails, layout.anchors, layout.vectors, layout.head)
    for folder in stored:
        shutil.rmtree(folder, ignore_errors=True)


def write_manifest(layout: IndexLayout, manifest: Manifest) -> None:
    """Writes the manifest, in place of the one that may be there; a reader sees one of them whole."""
    content = json.dumps(asdict(manifest), indent=2) + "\n"
    write_whole(layout.manifest, lambda file: file.write(content.encode()))


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file so that it is there whole or not at all, also after a power cut.

    Raises:
        IndexDirectoryError: it cannot be written; an earlier file of that name is untouched.
    """
    temporary = None
    try:
        make_folder(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            temporary = Path(file.name)
            write(file.file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):  # a disk that has become read-only: the next writer clears it
                temporary.unlink(missing_ok=True)
        raise IndexDirectoryError(
            f"{path} cannot be written ({error.strerror or error}). Make room or check the folder's permissions, "
            "then run the same command again: what is stored already is kept."
        ) from error


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each to last through a power cut: without its name, all in it is lost."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)


def sync_directory(folder: Path) -> None:
    """Makes a rename inside ``folder`` last through a power cut, where the system can."""
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
