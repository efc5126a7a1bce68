"""The sentence embedding model all-MiniLM-L6-v2, on `transformers`.

    model = SentenceModel(packed_files(), torch.device("cpu"), torch.float32)
    model.embed(["a red car", "a dog"]).shape          # (2, 384), of length 1

Reimers and Gurevych, 2019 (arXiv 1908.10084): the mean of the token states, brought to length 1.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from scanonce.models.encoders.reading import Reading, read_text
from scanonce.models.offline_weights import SENTENCES, checked_path
from scanonce.models.runtime import use_one_thread

WIDTH = 384
"""Width of the embeddings."""
MAX_TOKENS = 256
"""Longest text in tokens, as in the settings of sentence-transformers; the rest is dropped."""
FILES = ("config.json", "model.safetensors", "tokenizer.json")
_BATCH = 64

# In the file, but not used: the pooler of BERT's own training, and a constant that is not stored any more.
_UNUSED = ("pooler.", "embeddings.position_ids")


def packed_files() -> dict[str, bytes]:
    """Return the files of the model in the extra ``offline``, by name.

    Raises:
        EncoderUnavailable: its package is not installed.
        EncoderError: they are not the published ones.
    """
    with zipfile.ZipFile(checked_path(SENTENCES)) as archive:
        return {name: archive.read(name) for name in FILES}


class SentenceModel:
    """Texts to embeddings of length 1. Threads may share it."""

    def __init__(
        self, files: Mapping[str, bytes], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Load a model of this kind.

        Args:
            files: the content of `FILES`, by name.
            device: where it runs.
            dtype: type of the weights.

        Raises:
            RuntimeError, ValueError, KeyError: they are those of another kind of model.
        """
        self.fingerprint = hashlib.sha256(files["model.safetensors"]).hexdigest()
        """Digest of the weights: vectors of models with different ones do not compare."""
        config = BertConfig.from_dict(json.loads(files["config.json"]))
        self.dim = int(config.hidden_size)
        """Width of the embeddings."""
        tensors = load(files["model.safetensors"])
        rules = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._lock = Lock()  # tokenizers of the Rust library fail if two threads use one at once
        wanted = {name: each for name, each in tensors.items() if not name.startswith(_UNUSED)}
        with torch.device("meta"):  # shapes without numbers
            model = BertModel(config, add_pooling_layer=False)
        model.load_state_dict(wanted, strict=True, assign=True)
        # not in the file: a position is its own number, and all tokens are of the first kind
        embeddings = model.embeddings
        embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
        embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)
        self._model: Any = model.eval().to(device, dtype)
        self._device = device
        # the file pads and cuts every text to 128 tokens, which sentence-transformers overrules too
        rules.no_padding()
        rules.no_truncation()
        self._tokenizer: Any = PreTrainedTokenizerFast(
            tokenizer_object=rules,
            unk_token="[UNK]",
            sep_token="[SEP]",
            pad_token="[PAD]",
            cls_token="[CLS]",
            mask_token="[MASK]",
        )

    def read(self, text: str) -> Reading:
        """Judge the words of a text by the tokenizer."""
        return read_text(self._tokenizer, text, MAX_TOKENS)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: ``[M, 384]`` of length 1; a text longer than 256 tokens is cut."""
        use_one_thread()
        batches = [list(texts[start:][:_BATCH]) for start in range(0, len(texts), _BATCH)]
        parts = [np.zeros((0, self.dim), np.float32), *map(self._embed_batch, batches)]
        return np.concatenate(parts)

    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        with self._lock:
            tokens = self._tokenizer(
                texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(self._device)
        mask = tokens["attention_mask"]
        output = self._model(input_ids=tokens["input_ids"], attention_mask=mask)
        states = output.last_hidden_state.to(torch.float32)  # [M, T, 384]
        counts = mask[..., None].to(torch.float32)
        mean = (states * counts).sum(dim=1) / counts.sum(dim=1)
        embeddings: NDArray[np.float32] = functional.normalize(mean, dim=-1).cpu().numpy()
        return embeddings
