"""Speech made on the fly by eSpeak NG, whose library and data come in the package espeakng-loader."""

import ctypes
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h
_UTF8 = 1


def speech(text: str, speed: int = 140) -> tuple[NDArray[np.int16], int]:
    """Return ``[num_samples]`` of a text spoken in English, and its rate; without eSpeak the test is skipped."""
    loader = pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    library = ctypes.CDLL(loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(loader.get_data_path()).encode(), 0)
    assert rate > 0
    pieces: list[NDArray[np.int16]] = []
    form = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )

    def take(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.int16))
        return 0

    callback = form(take)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetVoiceByName(b"en")
    library.espeak_SetParameter(1, speed, 0)  # words a minute
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return np.concatenate(pieces), int(rate)


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
