"""All errors of Scanonce, in one small tree.

    ScanonceError                 any error shown to a person; its text ends with the next step
    ├── ConfigError               config.toml or an option has a value that is not allowed
    ├── IndexDirectoryError       the index directory is missing, foreign or cannot be read or written
    │   └── ManifestMismatch      the index was made with settings other than the requested ones
    ├── EncoderError              an encoder could not be loaded or does not fit
    │   └── EncoderUnavailable    its weights are not on this machine and the hub cannot be reached
    ├── LocaliserError            a trained localiser could not be loaded or does not fit the index
    ├── TrackError                a track cannot be read: a model or a package is missing
    ├── VideoError                one video file could not be used; a run goes on without it
    │   ├── UnreadableVideo       nothing of it could be decoded
    │   └── DecoderCrashed        the guarded child process died or hung on it
    └── QueryError                a query is empty or cannot be understood
        └── NoSuchVideo           it names a video that is not searchable, or not any more

Errors of other packages are converted at the point they arise, with ``raise ... from``; errors of the operating system
by `reported`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ScanonceError(Exception):
    """Any error shown to a person. The message says what was given, what is allowed and what to do.

    A message of several lines is made of several arguments: names of files may contain line breaks too, and those are
    shown as what they are.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ConfigError(ScanonceError):
    """A configuration file or an option has a value that is not allowed."""


class IndexDirectoryError(ScanonceError):
    """The index directory is missing, is not ours, or cannot be read or written."""


class ManifestMismatch(IndexDirectoryError):
    """The index was made with settings other than the requested ones."""


class EncoderError(ScanonceError):
    """An encoder could not be loaded, or its configuration does not fit."""


class EncoderUnavailable(EncoderError):
    """The weights are not on this machine and the hub cannot be reached."""


class LocaliserError(ScanonceError):
    """A trained localiser could not be loaded, or does not fit the index."""


class TrackError(ScanonceError):
    """A track cannot be read: a model or a package is missing."""


class VideoError(ScanonceError):
    """One video file could not be used. A run records the reason and goes on."""


class UnreadableVideo(VideoError):
    """Nothing of the file could be decoded."""


class DecoderCrashed(VideoError):
    """The guarded child process that decoded the file died or stopped answering."""


class QueryError(ScanonceError):
    """A query is empty or cannot be understood."""


class NoSuchVideo(QueryError):
    """There is no searchable video with an id."""


@contextmanager
def reported(path: Path, doing: str, *also: type[Exception]) -> Iterator[None]:
    """Turn an error of the operating system into one that says what to do.

    Args:
        path: the file or folder named in the message.
        doing: what failed, as in "cannot be written": ``written``, ``read``, ``removed``.
        also: errors of other packages that mean the same.

    Raises:
        IndexDirectoryError: the block raised an OSError, or one of ``also``.
    """
    mapped: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except mapped as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise IndexDirectoryError(
            f"{path} cannot be {doing} ({reason}). Make room or check the folder's permissions, "
            "then run the same command again: what is stored already is kept."
        ) from error
