"""How a browser can play a video: the file itself, or a proxy."""

import contextlib
import json
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from scanonce.media.cut import probe
from scanonce.media.playable import MediaFacts, playable
from scanonce.storage.errors import IndexDirectoryError, VideoError
from scanonce.storage.files import write_whole
from scanonce.storage.records import Video
from scanonce.storage.untrusted import DamagedFile, read_json
from scanonce.ui.safe_text import printable
from scanonce.ui.server.cache import ProxyCache

_FACTS = TypeAdapter(MediaFacts)


@dataclass(frozen=True, slots=True)
class Playback:
    """The address a player loads, and how."""

    url: str
    offset_seconds: float = 0.0
    """The player's clock at the first frame: add it to our times."""
    state_url: str | None = None
    """Reports how far the proxy is, which may have to be made first. None: the file is played as it is."""
    note: str | None = None
    """For people: why it is a proxy."""


def playback(video: Video, cache: ProxyCache) -> Playback:
    """Return how a browser can play a video. The first call for each video probes the file, 0.3 s.

    Raises:
        VideoError: the file is offline, or can no longer be read.
    """
    facts = media_facts(video, cache)
    if playable(facts):
        return Playback(f"/media/videos/{video.video_id}", facts.offset_seconds)
    url = f"/media/proxies/{video.video_id}"
    shown = ("interlaced" if facts.is_interlaced else None, "cropped" if facts.is_cropped else None)
    kind = " ".join(filter(None, (facts.video_codec, facts.audio_codec, *shown)))
    note = (
        f"Browsers cannot play this file as it is ({facts.container}, {kind}): this is a small copy. "
        "Clips are cut from the original."
    )
    return Playback(url, state_url=f"{url}/state", note=note)


def media_facts(video: Video, cache: ProxyCache) -> MediaFacts:
    """Return container and codecs of a video, remembered in the folder of the cache.

    Raises:
        VideoError: see :func:`playback`.
    """
    remembered = cache.folder / f"facts-{video.uid}.json"
    with contextlib.suppress(OSError, DamagedFile, ValueError, TypeError):
        return _FACTS.validate_python(read_json(remembered))
    facts = probe(find_file(video))
    content = json.dumps(asdict(facts)).encode()
    with contextlib.suppress(IndexDirectoryError):  # the next call probes again
        write_whole(remembered, lambda file: file.write(content))
    return facts


def find_file(video: Video) -> Path:
    """Return the first of a video's files that is present.

    Raises:
        VideoError: none is.
    """
    for path in video.paths:
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(path.stat().st_mode):
                return path
    raise VideoError(
        f"the file is offline: {printable(video.path.name)} is not where it was indexed. "
        "Connect its drive, or index the library again."
    )
