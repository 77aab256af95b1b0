"""The plain sections of train.yaml: settings that belong to no group."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Section


class Train(Section):
    """What is optimised, and for how long."""

    global_batch: int = Field(ge=1, description="samples in one optimizer step, over all processes")
    epochs: float | None = Field(gt=0, description="length in passes over the training split")
    steps: int | None = Field(ge=1, description="length in optimizer steps")
    samples: int | None = Field(ge=1, description="length in training samples seen")
    seconds: float | None = Field(gt=0, description="time budget in seconds, beside the length")
    seed: int = Field(ge=0, lt=2**32, description="weights, data order, augmentation and dropout follow from it")
    micro_batch: Count | Literal["auto"] | None = Field(
        description="most samples in one forward pass of one process; auto: as many as fit into memory"
    )
    clip_norm: float | None = Field(gt=0, description="gradients are scaled down to this norm")
    clip_value: float | None = Field(gt=0, description="then each number of a gradient is cut off at this size")
    ema: float | None = Field(gt=0, lt=1, description="decay of the averaged weights used for evaluation")
    lookahead: int | None = Field(ge=1, description="steps until slow weights take over; they are what is evaluated")
    lookahead_share: float = Field(gt=0, le=1, description="how far the slow weights go towards the others")
    learning_rate: Literal["find"] | None = Field(
        description="find: a short run of rising rates chooses optimizer.learning_rate"
    )
    learning_rate_scaling: Literal["none", "linear", "sqrt"] = Field(
        description="how the learning rate follows global_batch / base_batch"
    )
    base_batch: int = Field(ge=1, description="the global batch that the learning rate was chosen for")
    blocks: list[str] | None = Field(
        description="names of the model's like parts, as encoder.layer.*; null: the longest list of them"
    )
    activation_checkpointing: Literal["none", "blocks", "selective"] = Field(
        description="what backward computes again instead of keeping: whole blocks, or all but their products"
    )
    max_skipped_steps: int = Field(ge=1, description="non-finite updates in a row before the run ends")
    determinism: Literal["default", "exact"] = Field(description="exact: only kernels that repeat bit for bit")


class Metrics(Section):
    """What is recorded while training."""

    every: int = Field(ge=1, description="steps between two train records")


class Evaluate(Section):
    """When the validation split is read."""

    every: Count | Literal["epoch"] = Field(description="steps between two evaluations, or epoch")
    batch: int = Field(ge=1, description="samples in one forward pass of one process")


class Checkpoint(Section):
    """What is saved, and how much of it is kept."""

    every: Count | Literal["epoch"] = Field(description="steps between two checkpoints, or epoch")
    keep_last: int = Field(ge=1, description="newest checkpoints kept")
    keep_best: int = Field(ge=0, description="best checkpoints kept, by the task's metric on validation")


class Profile(Section):
    """Where the time of a step goes, in detail."""

    enabled: bool = Field(
        description="write a trace of a few steps, and a flame graph where a tool for it is installed, into profile/"
    )


SECTIONS: dict[str, type[Section]] = {
    "train": Train,
    "metrics": Metrics,
    "evaluate": Evaluate,
    "checkpoint": Checkpoint,
    "profile": Profile,
}
