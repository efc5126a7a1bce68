"""Texts as the text tower of an encoder takes them: tokens of the right case, length and padding.

texts = Texts(tokenizer, family_of("siglip"), model.config)
model.get_text_features(**texts.tokens(["a red car"]))
"""

from collections.abc import Sequence
from typing import Any

from scanonce.models.encoders.families import Family
from scanonce.models.encoders.reading import Reading, read_text

_LONGEST = 512
"""Most tokens of a query, for models that read whole books."""
_OFFSET_MODELS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "altclip_text_model"}
"""Text towers that number positions from the padding token's number + 1 on, so that they take fewer."""


class Texts:
    """The tokenizer of an encoder, used as in its training."""

    def __init__(self, tokenizer: Any, family: Family, config: Any) -> None:
        """Wrap the tokenizer of a model of this family with this configuration."""
        self.tokenizer = tokenizer
        self.max_tokens = _max_tokens(tokenizer, config.text_config)
        self._family = family
        self._is_lowered = family.is_lower_case and not hasattr(tokenizer, "do_lower_case")

    def tokens(self, texts: Sequence[str]) -> Any:
        """Return the keyword arguments of the text tower; longer texts are cut to its context."""
        tokens = self.tokenizer(
            [self._prepared(text) for text in texts],
            padding=self._family.padding,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        if not self._family.masks_padding:
            tokens.pop("attention_mask", None)
        return tokens

    def read(self, text: str) -> Reading:
        """Judge the words of a text by the tokenizer."""
        return read_text(self.tokenizer, text, self.max_tokens, self._prepared)

    def _prepared(self, text: str) -> str:
        return text.lower() if self._is_lowered else text


def _max_tokens(tokenizer: Any, text_config: Any) -> int:
    """Return how many tokens the text tower reads."""
    positions = int(getattr(text_config, "max_position_embeddings", None) or _LONGEST)
    if text_config.model_type in _OFFSET_MODELS:
        positions -= int(text_config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length), _LONGEST)
