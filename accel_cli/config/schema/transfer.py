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


class FrozenFeatures(Option):
    """Train the head of a model on features that the frozen rest gives, computed once."""

    weights: str | None = Field(
        description="a .safetensors file or a run folder; null: what the model brought, such as published weights"
    )
    head: str = Field(min_length=1, description="the module that is trained; auto: the one whose output is the model's")
    views: int = Field(
        ge=1, description="augmented views of each training sample that are kept; epochs take them in turn"
    )


OPTIONS = {
    "none": Entry(Transfer, "accel_cli.transfer.base:Transfer"),
    "finetune": Entry(Finetune, "accel_cli.transfer.finetune:Finetune"),
    "frozen_features": Entry(FrozenFeatures, "accel_cli.transfer.frozen_features:FrozenFeatures"),
}
