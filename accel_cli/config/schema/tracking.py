"""Tracking: where the records of a run go beside metrics.jsonl; several at once."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Tracker(Option):
    """Nowhere: metrics.jsonl in the run folder is all."""


class TensorBoard(Option):
    """TensorBoard scalars, in the run folder's tensorboard/."""

    flush_seconds: float = Field(ge=1, description="seconds until a record is on disk at the latest")


OPTIONS = {
    "none": Entry(Tracker, "accel_cli.tracking.base:Tracker"),
    "tensorboard": Entry(TensorBoard, "accel_cli.tracking.tensorboard:TensorBoard", ("tensorboard",)),
}
