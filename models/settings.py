"""Settings of the encoders."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelSettings(BaseModel):
    """The ``[models]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(
        default="openai/clip-vit-base-patch32",
        description='encoder of new indexes: a hub id, a local folder, or "bundled"',
    )
    localiser: str = Field(
        default="auto",
        description='what finds the moments of new indexes: "auto" (the bundled SOONet where it fits the encoder, else '
        'training-free), "training-free", "bundled", a folder, or a published .pth file',
    )
    device: str = Field(
        default="auto", description='"auto" (GPU when there is one), "cpu", "cuda", "cuda:1", "mps"'
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="number format of the weights; auto takes bf16 where the hardware multiplies it",
    )
    backend: Literal["torch", "openvino"] = Field(
        default="torch",
        description="what computes the vision tower; openvino: faster on a CPU, and only there, an extra to install",
    )

    @model_validator(mode="after")
    def _openvino_means_the_cpu(self) -> Self:
        if self.backend == "openvino" and self.device not in ("auto", "cpu"):
            raise ValueError(
                f'backend "openvino" computes on the CPU: device is "{self.device}"; '
                'set it to "auto" or "cpu", or backend to "torch"'
            )
        return self
