"""A synthetic voice: eSpeak NG, whose library and data come in the package espeakng-loader (extra ``dev``).

samples, rate = speak("The yellow submarine is under the bridge.")
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h
_UTF8, _RATE, _PITCH = 1, 1, 3  # espeakCHARS_UTF8, espeakRATE, espeakPITCH
_QUIET = 200  # of 32,767: below it, either end is no speech
_TAKE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def speak(text: str, *, speed: int = 140, pitch: int = 50) -> tuple[NDArray[np.int16], int]:
    """Speak an English text.

    Args:
        text: the sentence to say.
        speed: words a minute.
        pitch: 0 to 100.

    Returns:
        ``[num_samples]`` from the first sound to the last, and samples a second.

    Raises:
        ModuleNotFoundError: espeakng-loader is not installed.
    """
    library, rate = _library()
    pieces: list[NDArray[np.int16]] = []

    def take(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.int16))
        return 0

    callback = _TAKE(take)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetVoiceByName(b"en")
    library.espeak_SetParameter(_RATE, speed, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    samples = np.concatenate(pieces)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _QUIET)
    return samples[loud[0] : loud[-1] + 1], rate


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    folder = str(espeakng_loader.get_data_path()).encode()
    rate = int(library.espeak_Initialize(_SYNCHRONOUS, 0, folder, 0))
    if rate <= 0:
        raise RuntimeError(f"eSpeak NG does not start ({rate}): install espeakng-loader again")
    return library, rate
