"""Videos with speech, which is made on the fly."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.training.world.voice import speak


def speech(text: str, speed: int = 140) -> tuple[NDArray[np.int16], int]:
    """Return ``[num_samples]`` of a text spoken in English, and its rate; without eSpeak the test is skipped."""
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    return speak(text, speed=speed)


def write_with_audio(
    path: Path, tracks: list[tuple[NDArray[np.int16], int]], seconds: float
) -> Path:
    """Write a grey video with an audio track for each of some samples and their rate."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams: list[Any] = [
            output.add_stream("aac", rate=rate, layout="mono") for _, rate in tracks
        ]
        for number in range(int(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts = number
            output.mux(video.encode(frame))
        output.mux(video.encode())
        for stream, (samples, rate) in zip(streams, tracks, strict=True):
            for start in range(0, len(samples), 1024):
                piece = samples[start : start + 1024].astype(np.float32) / 32768
                sound = av.AudioFrame.from_ndarray(piece[None], format="fltp", layout="mono")
                sound.sample_rate, sound.pts = rate, start
                output.mux(stream.encode(sound))
            output.mux(stream.encode())
    return path
