"""From a batch as it was stored to the batch that a model takes, on its device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem


class Finish:
    """Move, convert, normalise and augment a batch; every loader and the evaluation end here.

    The augmentation normalises between what works on stored inputs, bytes mostly, and what does not.

    A pair (inputs, targets) with tensor inputs follows the description: images and vectors become
    float32 (x - mean) / std, a constant feature (std 0) becoming 0; tokens become int64. Anything else, such as what
    the user's own collate made, is moved to the device as it is.
    """

    def __init__(self, description: DataDescription, device: torch.device, augment: Any = None) -> None:
        self.device = device
        self.augment = augment
        self.keys = augment.keys if augment is not None else own_keys
        self._is_cuda, self._is_host = device.type == "cuda", device.type == "cpu"
        self._description = description
        self._inputs = {"image": self._scale, "vector": self._scale, "tokens": Tensor.long}.get(description.input)
        self._targets = {"class": Tensor.long, "next_token": Tensor.long, "number": self._numbers}.get(
            description.target
        )
        self._mean, self._rate = self._buffers()
        self.mark: Callable[[str], object] = str
        """Called where a batch has been read, and where it is on a device that is not the host."""

    def __call__(self, batch: Any, epochs: Tensor, indices: Tensor, step: int = 0) -> Any:
        """``epochs`` and ``indices`` int64 [n] on the CPU name the samples: augmentation draws from them.

        ``batch`` is what was read for ``augment.keys(epochs, indices)``; sizes that grow follow ``step``.
        """
        if not is_pair(batch):
            if self.augment is not None:
                why = f"changes (inputs, targets); the batches of this data are {type(batch).__name__}"
                raise ConfigError(Problem("augment", why, "try augment=none"))
            return self._moved(batch)
        inputs, targets = batch[0], batch[1]
        if not self._is_host:
            inputs, targets = self._moved((inputs, targets))
        if self._targets is not None and isinstance(targets, Tensor):
            targets = self._targets(targets)
        if self.augment is not None:
            return self.augment(inputs, targets, epochs, indices, step, self._inputs)
        return self._inputs(inputs) if self._inputs is not None else inputs, targets

    def _moved(self, batch: Any) -> Any:
        if self._is_host:
            return map_tensors(self._move, batch)
        self.mark("data")
        moved = map_tensors(self._move, batch)
        self.mark("copy")
        return moved

    def _move(self, tensor: Tensor) -> Tensor:
        if self._is_cuda:
            return tensor.pin_memory().to(self.device, non_blocking=True) if not tensor.is_cuda else tensor
        if self.device.type == "mps" and tensor.dtype == torch.float64:
            tensor = tensor.float()  # mps has no float64
        return tensor.to(self.device)

    def _scale(self, inputs: Tensor) -> Tensor:
        if self._mean is None or self._rate is None:
            return inputs.float()
        if inputs.dtype == torch.uint8:  # the difference is float32 without a copy
            return (inputs - self._mean).mul_(self._rate)
        return (inputs.float() - self._mean).mul_(self._rate)

    def _numbers(self, targets: Tensor) -> Tensor:
        targets = targets.float()
        return targets[:, None] if targets.ndim == 1 and self._description.outputs == 1 else targets

    def _buffers(self) -> tuple[Tensor | None, Tensor | None]:
        """Means, and 1 / std: a product is cheaper than a quotient."""
        mean, std = self._description.mean, self._description.std
        if mean is None or std is None or self._description.input not in ("image", "vector"):
            return None, None
        shape = (1, -1, 1, 1) if self._description.input == "image" else (1, -1)
        return (
            torch.tensor(mean, dtype=torch.float32, device=self.device).view(shape),
            torch.tensor([1.0 / (s or 1.0) for s in std], dtype=torch.float32, device=self.device).view(shape),
        )


def own_keys(epochs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """What is read for a batch: its samples and no others."""
    return epochs, indices


def is_pair(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], Tensor)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with every tensor in its dicts, lists and tuples replaced by ``function`` of it."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: map_tensors(function, v) for name, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, v) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(function, v) for v in value)
    return value
