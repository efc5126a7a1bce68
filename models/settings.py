"""Settings of the encoders and localisers."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelSettings(BaseModel):
    """The ``[models]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(
        default="openai/clip-vit-base-patch32",
        description='(index) Encoder of new indexes: a hub id, a local folder, "concepts" (real videos without the '
        'hub: docs/encoders.md), or "bundled" (understands only the rendered cartoon world of the demo).',
    )
    dim: int = Field(
        default=0,
        ge=0,
        le=8192,
        description="(index) Numbers of a vector, for encoders whose vectors may be shortened (EmbeddingGemma 2: 768, "
        "512, 256 or 128; Qwen3-VL-Embedding: 64 to 2048): the index is smaller, and a little less exact. 0: all.",
    )
    localiser: str = Field(
        default="auto",
        description='Localiser of new indexes, which finds moments in videos: "auto" (the bundled SOONet if it fits '
        'the encoder, else training-free), "training-free", "bundled", a folder, or a published .pth file. '
        "`scanonce localise` changes the localiser of an index.",
    )
    device: str = Field(
        default="auto",
        description='Device of the models: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" or "mps".',
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description='Number format of the weights: "auto" (bfloat16 if the hardware multiplies it), "float32", '
        '"bfloat16" or "float16".',
    )
    backend: Literal["torch", "openvino"] = Field(
        default="torch",
        description='Back end of the vision tower: "torch", or "openvino", which is faster on a CPU and runs only '
        'there; install it with pip install -e ".[openvino]".',
    )

    @model_validator(mode="after")
    def _openvino_means_the_cpu(self) -> Self:
        if self.backend == "openvino" and self.device not in ("auto", "cpu"):
            raise ValueError(
                f'backend "openvino" computes on the CPU: device is "{self.device}"; '
                'set it to "auto" or "cpu", or backend to "torch"'
            )
        return self
