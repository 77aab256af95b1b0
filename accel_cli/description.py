"""What the data is, in plain facts: the one thing that data, model and task know of each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class DataDescription:
    """Shapes leave out the batch. Sizes count samples; None where only a stream would tell."""

    input: Literal["image", "vector", "tokens", "other"]
    target: Literal["class", "number", "next_token", "other"]
    input_shape: tuple[int, ...]
    """image: (channels, height, width) · vector: (features,) · tokens: (length,)"""
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    outputs: int | None = None
    """Numbers to predict for each sample, where the target is a number."""
    vocabulary: int | None = None
    mean: tuple[float, ...] | None = None
    """Of each channel or feature, in the units of the stored arrays; the loader subtracts it."""
    std: tuple[float, ...] | None = None
    bytes_per_token: float | None = None
    """Turns a loss per token into bits per byte."""
    bytes_per_token_of: dict[str, float] | None = None
    """The same of each split, where they differ."""
    train_samples: int | None = None
    validation_samples: int | None = None
    test_samples: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataDescription:
        known = {field.name for field in fields(cls)}
        kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**kept)
