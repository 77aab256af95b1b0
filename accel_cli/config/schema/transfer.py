"""Transfer: where the first weights come from, and how fast each may move."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option

LIBRARIES = ("torchvision", "timm")
Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[
    float, Field(gt=0, le=1, description="learning-rate factor per depth, from the head backwards; 1: none")
]


class Transfer(Option):
    """Train from the model's own first values."""


class Weighted(Option):
    """What starts from trained weights."""

    weights: str | None = Field(
        description="a .safetensors file, a run folder, torchvision:<name> or timm:<name>; null: what the model brought"
    )

    @property
    def packages(self) -> dict[str, str]:
        library = (self.weights or "").partition(":")[0]
        return {"weights": library} if library in LIBRARIES else {}


class Finetune(Weighted):
    """Start from trained weights; freeze or slow down what is already good."""

    freeze: list[str] = Field(description="glob patterns on parameter names; these stay as they are")
    layer_decay: Decay
    head_rate: Rate = Field(description="learning-rate factor of parameters that the weights did not fill")


class GradualUnfreezing(Finetune):
    """Train the head first, then the layers before it too, from the last to the first."""

    start: float = Field(ge=0, lt=1, description="share of the steps after which the first layers thaw")
    end: float = Field(ge=0, lt=1, description="share of the steps after which all are trained")
    times: Count = Field(description="how many times layers thaw between start and end, as many each time")


class Lora(Weighted):
    """Train low-rank additions to layers that stay as they are; at the end they are merged into them."""

    layers: list[str] = Field(min_length=1, description="glob patterns on the names of linear layers and convolutions")
    rank: Count = Field(description="of each addition, at most that of the layer")
    alpha: Rate = Field(description="the additions are multiplied by alpha / rank")
    dropout: float = Field(ge=0, lt=1, description="share of a layer's inputs that its addition does not see")
    head: str | None = Field(
        min_length=1,
        description="the module that is trained whole; auto: the one whose output is the model's; null: none",
    )
    layer_decay: Decay
    head_rate: Rate = Field(description="learning-rate factor of what is trained whole")


class LinearProbe(Weighted):
    """Train the head alone, on features computed once where a sample is the same in every epoch."""

    head: str = Field(min_length=1, description="the module that is trained; auto: the one whose output is the model's")


class FrozenFeatures(Weighted):
    """Train the head of a model on features that the frozen rest gives, computed once."""

    head: str = Field(min_length=1, description="the module that is trained; auto: the one whose output is the model's")
    views: int = Field(
        ge=1, description="augmented views of each training sample that are kept; epochs take them in turn"
    )


OPTIONS = {
    "none": Entry(Transfer, "accel_cli.transfer.base:Transfer"),
    "finetune": Entry(Finetune, "accel_cli.transfer.finetune:Finetune"),
    "gradual_unfreezing": Entry(GradualUnfreezing, "accel_cli.transfer.gradual_unfreezing:GradualUnfreezing"),
    "lora": Entry(Lora, "accel_cli.transfer.lora:Lora"),
    "linear_probe": Entry(LinearProbe, "accel_cli.transfer.linear_probe:LinearProbe"),
    "frozen_features": Entry(FrozenFeatures, "accel_cli.transfer.frozen_features:FrozenFeatures"),
}
