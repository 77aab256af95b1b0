"""Compression: passes that make the model smaller around training; several, in order."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


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


OPTIONS = {
    "none": Entry(Pass, "accel_cli.compression.base:Pass"),
    "distill": Entry(Distill, "accel_cli.compression.distill:Distill"),
}
