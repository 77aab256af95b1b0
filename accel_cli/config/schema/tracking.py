"""Tracking: where the records of a run go beside metrics.jsonl; several at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Tracker(Option):
    """Nowhere: metrics.jsonl in the run folder is all."""


class TensorBoard(Option):
    """TensorBoard scalars, in the run folder's tensorboard/."""

    flush_seconds: float = Field(ge=1, description="seconds until a record is on disk at the latest")


class MLflow(Option):
    """MLflow: the records as metrics, the settings as parameters; in the run folder, or at a server."""

    uri: str | None = Field(
        min_length=1, description="where; null: the run folder's mlflow/. A server: http://host:5000"
    )
    experiment: str = Field(min_length=1, description="the MLflow experiment that the run belongs to")


class WandB(Option):
    """Weights & Biases: the records as history, the settings as config; offline in the run folder, or online."""

    mode: Literal["offline", "online"] = Field(description="offline: `wandb sync` sends it later; online: at once")
    project: str = Field(min_length=1, description="the project that the run belongs to")


OPTIONS = {
    "none": Entry(Tracker, "accel_cli.tracking.base:Tracker"),
    "tensorboard": Entry(TensorBoard, "accel_cli.tracking.tensorboard:TensorBoard", ("tensorboard",)),
    "mlflow": Entry(MLflow, "accel_cli.tracking.mlflow:MLflow", ("mlflow",)),
    "wandb": Entry(WandB, "accel_cli.tracking.wandb:WandB", ("wandb",)),
}
