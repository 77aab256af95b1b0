"""Task: what the model is to predict, its loss and its metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option

Smoothing = Annotated[float, Field(ge=0, lt=1)]
Views = Literal["none", "flip", "flip_and_shift"]


class Auto(Option):
    """The task that the data's targets call for."""

    label_smoothing: Smoothing = Field(description="classes only: share of the target spread over all classes")
    test_time_augmentation: Views = Field(description="classes of images only: none, flip or flip_and_shift")
    ignored_targets: bool = Field(description="tokens only: targets of -100 are left out")


class Classification(Option):
    """One class a sample: cross-entropy, accuracy."""

    label_smoothing: Smoothing = Field(description="share of the target spread over all classes, in training")
    test_time_augmentation: Views = Field(
        description="views of an image whose outputs are averaged in evaluation; flip: 2 of them, flip_and_shift: 6"
    )


class Regression(Option):
    """Numbers: mean squared error, mean absolute error, explained share."""


class LanguageModel(Option):
    """The next token: cross-entropy a token, bits per byte, perplexity."""

    ignored_targets: bool = Field(
        description="targets of -100 (padding, prompts) are left out of loss and metrics; "
        "costs one small copy to the host a batch"
    )


class Custom(Option):
    """Your own loss and metrics."""

    factory: str = Field(description="package.module:Name of a class with loss(model, batch) and metrics(model, batch)")
    args: dict[str, Any] = Field(description="keyword arguments for it")
    metric: str = Field(description="the metric that decides which checkpoint is best; one of its metrics")
    mode: Literal["min", "max"] = Field(description="whether less or more of the metric is better")


OPTIONS = {
    "auto": Entry(Auto, "accel_cli.task.auto:auto"),
    "classification": Entry(Classification, "accel_cli.task.classification:Classification"),
    "regression": Entry(Regression, "accel_cli.task.regression:Regression"),
    "language_model": Entry(LanguageModel, "accel_cli.task.language_model:LanguageModel"),
    "custom": Entry(Custom, "accel_cli.task.custom:Custom"),
}
