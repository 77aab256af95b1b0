"""Transfer: where the first weights come from, and how fast each may move."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Transfer(Option):
    """Train from the model's own first values."""


class Finetune(Option):
    """Start from trained weights; freeze or slow down what is already good."""

    weights: str | None = Field(
        description="a .safetensors file or a run folder; null: what the model brought, such as published weights"
    )
    freeze: list[str] = Field(description="glob patterns on parameter names; these stay as they are")
    layer_decay: float = Field(
        gt=0, le=1, description="learning-rate factor per depth, from the head backwards; 1: none"
    )
    head_rate: float = Field(gt=0, description="learning-rate factor of parameters that the weights did not fill")


OPTIONS = {
    "none": Entry(Transfer, "accel_cli.transfer.base:Transfer"),
    "finetune": Entry(Finetune, "accel_cli.transfer.finetune:Finetune"),
}
