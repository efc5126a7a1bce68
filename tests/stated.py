"""Small videos that state facts about their recording."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

OPTIONS = {"mp4": {"movflags": "use_metadata_tags"}, "mov": {"movflags": "use_metadata_tags"}}


def write_stated(
    path: Path,
    tags: Mapping[str, str] | None = None,
    *,
    timecode: str = "",
    fps: Fraction | int = 25,
    num_frames: int = 5,
    languages: tuple[str, ...] = ("deu",),
    layout: str = "stereo",
    chapters: int = 0,
) -> Path:
    """Write a video of 64 x 48 with tags, a timecode, tracks of silence and chapters; the ending is the container."""
    kind = path.suffix[1:]
    codecs = {
        "mxf": ("mpeg2video", "pcm_s16le"),
        "ts": ("mpeg2video", "mp2"),
        "webm": ("libvpx", "libopus"),
    }
    picture, sound = codecs.get(kind, ("mpeg4", "aac"))
    with av.open(str(path), "w", options=OPTIONS.get(kind, {})) as output:
        output.metadata.update(tags or {})
        video: Any = output.add_stream(picture, rate=Fraction(fps))
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if timecode:
            (output if kind == "mxf" else video).metadata["timecode"] = timecode
        tracks: list[Any] = [output.add_stream(sound, rate=48000, layout=layout) for _ in languages]
        for track, language in zip(tracks, languages, strict=True):
            track.metadata["language"] = language
        if chapters:
            output.set_chapters(
                [
                    {"id": each, "start": each, "end": each + 1, "time_base": Fraction(1, 1000),
                     "metadata": {"title": f"part {each}"}}
                    for each in range(chapters)
                ]
            )  # fmt: skip
        for number in range(num_frames):
            image = np.full((48, 64, 3), 10 * number % 255, np.uint8)
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = number, 1 / Fraction(fps)
            output.mux(video.encode(frame))
        for track in tracks:
            form = track.codec_context.format.name
            silence = av.AudioFrame(
                format=form, layout=layout, samples=track.codec_context.frame_size or 1920
            )
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate, silence.pts = 48000, 0
            output.mux(track.encode(silence))
            output.mux(track.encode(None))
        output.mux(video.encode(None))
    return path
