"""Encoders with the vision tower on Intel's OpenVINO: a quarter more frames per CPU second than torch in bf16.

With several threads on cores that other processes need too, such as decoders, it keeps that rate; torch falls far
below.

    encoder = load_encoder("bundled", ModelSettings(backend="openvino"))

Only the computation from pixels to features differs from `TransformersEncoder`; files, checks, fingerprint,
preprocessing and text tower are the same. Vectors of both agree as closely as those of bf16 and fp32 do (cosine
0.9999), so the fingerprint is the same and an index may be extended with either. Loading takes one to three seconds
longer, for the conversion.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging as transformers_logging

from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.models.encoders.protocol import Towers
from scanonce.models.runtime import num_cores, pick_dtype
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class OpenVinoEncoder(TransformersEncoder):
    """`ClipEncoder` on the CPU: frames go through a compiled OpenVINO model, texts through torch."""

    def __init__(
        self, name: str, folder: Path, settings: ModelSettings, *, towers: Towers = "both"
    ) -> None:
        """Load, convert and compile; for the arguments see `TransformersEncoder`.

        Raises:
            EncoderError: the package or a usable checkpoint is missing, or the model cannot be converted.
        """
        openvino = _import_openvino()
        # Converted from fp32 even for bf16: OpenVINO keeps constants in torch's memory, and does not keep that memory
        # alive for those of 16 bits, so releasing the torch tower would leave it with freed weights. fp32 weights are
        # mapped from the file, not copied; the compiled model holds its own bf16 weights.
        in_fp32 = settings.model_copy(update={"device": "cpu", "dtype": "float32"})
        super().__init__(name, folder, in_fp32, towers=towers)
        compute_dtype = pick_dtype(self.device, settings.dtype)
        try:
            self._model.requires_grad_(False)
            size = self.preprocessing.output_size
            self._vision = _compile(openvino, self._image_features, size, compute_dtype)
        except _failures(openvino) as error:
            reason = " ".join(str(error).split())
            raise EncoderError(
                f'{folder} cannot be converted to OpenVINO ({reason}). Set models.backend to "torch".'
            ) from error
        self._model.vision_model = None
        self._dtype = compute_dtype
        self._model.to(compute_dtype)
        self._lock = Lock()  # a compiled model refuses a second call while one is running

    @property
    def max_concurrency(self) -> int:
        """One call at a time: the compiled model spreads it over its own threads."""
        return 1

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode ``[N, H, W, 3]`` RGB, before or after ``preprocessing.resize``, to raw features ``[N, dim]``."""
        if not len(frames):
            return np.zeros((0, self.dim), np.float32)
        images = self.preprocessing.resize(frames)
        with self._lock:
            features: NDArray[np.float32] = self._vision(images)[0]  # a copy
        return features


def _import_openvino() -> Any:
    # Importing openvino sends a message to Google Analytics, without asking. It works without the package that sends.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EncoderError(
            'models.backend is "openvino", which is not installed. Install it: pip install -e ".[openvino]" '
            '(or set models.backend to "torch").'
        ) from error
    return openvino


def _failures(openvino: Any) -> tuple[type[Exception], ...]:
    """Exceptions of tracing, converting and compiling; those of the converter have no common base class."""
    front = openvino.frontend
    own = (front.OpConversionFailure, front.NotImplementedFailure, front.GeneralFailure)
    return (RuntimeError, *own)


def _compile(
    openvino: Any,
    encode: Callable[[torch.Tensor], torch.Tensor],
    size: tuple[int, ...],
    dtype: torch.dtype,
) -> Any:
    """Compile the vision tower: ``[N, *size, 3]`` uint8 to features ``[N, dim]`` fp32, computed in ``dtype``."""
    converted = _convert(openvino, encode, size)
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": num_cores(),
        "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch: calls come one at a time
        "ENABLE_CPU_PINNING": False,  # decoding processes share the cores
    }
    return openvino.Core().compile_model(converted, "CPU", options)


def _convert(
    openvino: Any, encode: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, ...]
) -> Any:
    # Normalising is part of the graph: it takes bytes, and no fp32 copy of the batch is made.
    size = (*size, 3)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # tracing warns of every branch on a shape; all shapes are fixed
            # A function, not a module: tracing a module evaluates all its properties. Without check_trace, which
            # runs the model four more times; the conformance tests compare its output.
            example = torch.zeros(2, *size, dtype=torch.uint8)
            traced = torch.jit.trace(encode, example, check_trace=False)  # type: ignore[no-untyped-call]
            return openvino.convert_model(traced, input=[-1, *size])
    finally:
        transformers_logging.set_verbosity(verbosity)
