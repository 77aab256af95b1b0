"""Compression: passes that make the model smaller around training; several, in order."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option, Section


class Own(Section):
    """What holds for all passes."""

    floor: float | None = Field(
        ge=0, description="how much worse than before a pass validation's metric may come out; else it is rolled back"
    )


class Pass(Option):
    """The model keeps its size."""


Part = Annotated[float, Field(ge=0, le=1)]


class Masked(Option):
    """Weights that are held at zero while the rest trains."""

    start: Part = Field(description="part of the run's steps after which masking begins")
    only: list[str] | None = Field(
        min_length=1, description="glob patterns of the parameters that are masked; null: weights, no norms, embeddings"
    )
    keep: list[str] = Field(description="glob patterns of parameters that stay dense")
    rewind: Part | None = Field(description="part of the run's steps whose weights each cut goes back to; null: none")


class PruneMagnitude(Masked):
    """The smallest weights become zero and stay zero."""

    sparsity: float = Field(gt=0, lt=1, description="share of the masked weights that are zero in the end")
    scope: Literal["global", "layer"] = Field(description="the smallest of all layers together, or of each by itself")
    schedule: Literal["one_shot", "cubic", "geometric"] = Field(
        description="all at start, or gradually: fast at first, or an equal share of what is left each time"
    )
    end: Part = Field(description="gradual: part of the run's steps after which the mask is whole")
    times: int = Field(ge=1, description="gradual: how often the mask grows")


class Prune24(Masked):
    """Of every four weights along the inputs the two smallest become zero."""


class Distill(Option):
    """Learn from the outputs of a trained model beside the targets."""

    teacher: str = Field(
        min_length=1, description="a run folder, torchvision:<architecture>, or your own package.module:name"
    )
    checkpoint: str = Field(
        min_length=1, description="of a run, which of its checkpoints: best, latest or a checkpoint's name"
    )
    weights: str | None = Field(
        min_length=1, description="of others, a .safetensors file; torchvision's may be published ones, such as DEFAULT"
    )
    args: dict[str, Any] = Field(description="arguments of a teacher that is no run")
    temperature: float = Field(gt=0, description="both outputs are softened by it; numbers to predict are not")
    share: float = Field(ge=0, le=1, description="of the loss that comes from the teacher; the rest is the task's own")
    cache: bool = Field(description="whether the teacher's outputs are computed once, instead of in every step")
    views: int = Field(
        ge=1, description="cached: augmented views of each training sample that are kept; epochs take them in turn"
    )
    features: Literal["hint", "attention"] | None = Field(
        description="learn inner features too: by a projection (hint), or where they are large (attention); null: none"
    )
    layers: list[Annotated[str, Field(pattern=r"^[^:]+(:[^:]+)?$")]] = Field(
        description="modules whose outputs are matched, student:teacher; one name stands for both"
    )
    feature_weight: float = Field(ge=0, description="of the features' distance, which is added to the loss")

    @property
    def architecture(self) -> str | None:
        """Of torchvision, where the teacher is one of its models."""
        library, _, name = self.teacher.partition(":")
        return name if library == "torchvision" and name else None

    @property
    def is_factory(self) -> bool:
        return self.architecture is None and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.teacher) is not None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(module of the student, module of the teacher)"""
        split = (layer.partition(":") for layer in self.layers)
        return [(own, other or own) for own, _, other in split]


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


class Quantization(Option):
    """What passes that quantize have in common."""

    samples: Count = Field(description="training samples that the ranges of inputs are calibrated on")
    ranges: Literal["minmax", "percentile", "mse"] = Field(
        description="minmax: all numbers fit; percentile: all but a few at each end; mse: least rounding error"
    )
    percentile: float = Field(
        gt=50, le=100, description="ranges=percentile: percent of the numbers below the upper end, or above the lower"
    )
    keep: list[str] = Field(description="glob patterns on names of layers; these stay as they are")


class PTQ(Quantization):
    """Integers for weights and inputs, once training has ended."""

    mode: Literal["static", "dynamic", "weight_only"] = Field(
        description="inputs are rounded by calibrated ranges; by each batch's own, in linear layers; or not at all"
    )
    bits: Literal[4, 8] = Field(description="of a weight; 4: linear layers of mode=weight_only")
    group_size: Literal[16, 32, 64, 128, 256] = Field(
        description="bits=4: weights that share a scale, along the input of a linear layer"
    )


class QAT(Quantization):
    """Training goes on with weights and inputs rounded as the integers that they will be."""

    weight_bits: int = Field(ge=2, le=8, description="of a weight; symmetric, a scale for each output channel")
    activation_bits: int = Field(ge=2, le=16, description="of the inputs of layers; a scale for each tensor")
    start: float = Field(ge=0, lt=1, description="share of the run's steps after which it begins")
    power_of_two: bool = Field(description="whether scales are powers of two: fixed-point numbers, as for an FPGA")


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
    "prune_magnitude": Entry(PruneMagnitude, "accel_cli.compression.prune_magnitude:PruneMagnitude"),
    "prune_2_4": Entry(Prune24, "accel_cli.compression.prune_2_4:Prune24"),
    "prune_structured": Entry(
        PruneStructured, "accel_cli.compression.prune_structured:PruneStructured", requires=("torch_pruning",)
    ),
    "low_rank": Entry(LowRank, "accel_cli.compression.low_rank:LowRank"),
    "distill": Entry(Distill, "accel_cli.compression.distill:Distill"),
    "ptq": Entry(PTQ, "accel_cli.compression.ptq:PTQ"),
    "qat": Entry(QAT, "accel_cli.compression.qat:QAT"),
}
