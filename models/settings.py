"""Settings of the encoders."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSettings(BaseModel):
    """The ``[models]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(
        default="openai/clip-vit-base-patch32",
        description='encoder of new indexes: a hub id, a local folder, or "bundled"',
    )
    device: str = Field(
        default="auto", description='"auto" (GPU when there is one), "cpu", "cuda", "cuda:1", "mps"'
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="number format of the weights; auto takes bf16 where the hardware multiplies it",
    )
