"""Compression: passes that make the model smaller around training; several, in order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option, Section


class Own(Section):
    """What holds for all passes."""

    floor: float | None = Field(
        ge=0, description="how much worse than before a pass validation's metric may come out; else it is rolled back"
    )


class Pass(Option):
    """The model keeps its size."""


class Distill(Option):
    """Learn from the outputs of a trained model beside the targets."""

    teacher: str = Field(min_length=1, description="a run folder whose model is the teacher")
    checkpoint: str = Field(min_length=1, description="which of its checkpoints: best, latest or a checkpoint's name")
    temperature: float = Field(gt=0, description="both outputs are softened by it; numbers to predict are not")
    share: float = Field(ge=0, le=1, description="of the loss that comes from the teacher; the rest is the task's own")
    cache: bool = Field(description="whether the teacher's outputs are computed once, instead of in every step")
    views: int = Field(
        ge=1, description="cached: augmented views of each training sample that are kept; epochs take them in turn"
    )


class PruneStructured(Option):
    """Take out whole channels, neurons and heads; tensors shrink."""

    multiply_adds: float = Field(gt=0, lt=1, description="of the whole model's, so many are left at most")
    importance: Literal["magnitude", "taylor"] = Field(
        description="magnitude: norm of the weights; taylor: of weight x gradient, over some training samples"
    )
    samples: Count = Field(description="taylor: training samples that the gradients are taken over")
    scope: Literal["global", "layer"] = Field(
        description="global: the least important of the whole model go; layer: the same share of every layer"
    )
    multiple: Count = Field(description="channels stay a multiple of this: processors work in blocks of 16")
    least: float = Field(ge=0, lt=1, description="of a layer's channels, so many stay")
    keep: list[str] = Field(description="glob patterns on module names that keep their width")
    start: float = Field(ge=0, lt=1, description="of the run's steps, when the first are taken out")
    end: float | None = Field(ge=0, lt=1, description="with times: of the run's steps, when the last are taken out")
    times: Count = Field(description="how often, from start to end, each time as many multiply-adds less")


class LowRank(Option):
    """Layers of low rank in place of full ones, where that saves multiply-adds."""

    layers: list[str] = Field(min_length=1, description="glob patterns on the names of linear layers and convolutions")
    energy: float | None = Field(
        gt=0, lt=1, description="share of the squared singular values that a layer keeps; null: by multiply_adds"
    )
    multiply_adds: float | None = Field(
        gt=0, lt=1, description="share of its multiply-adds that a layer keeps; null: by energy"
    )
    multiple: Count = Field(description="ranks are multiples of it where they can be")
    start: float = Field(ge=0, le=1, description="share of the run's steps before it; 0: before training")


OWN = Own
OPTIONS = {
    "none": Entry(Pass, "accel_cli.compression.base:Pass"),
    "prune_structured": Entry(
        PruneStructured, "accel_cli.compression.prune_structured:PruneStructured", requires=("torch_pruning",)
    ),
    "low_rank": Entry(LowRank, "accel_cli.compression.low_rank:LowRank"),
    "distill": Entry(Distill, "accel_cli.compression.distill:Distill"),
}
