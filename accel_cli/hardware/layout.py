"""How images and filters lie in memory: channel by channel, or pixel by pixel with its channels side by side."""

from __future__ import annotations

import torch
from torch import nn


def arrange(model: nn.Module, memory_format: str) -> list[str]:
    """Make two-dimensional convolutions channels_last, in place; what they give, and all that follows, is so too.

    Their filters alone decide: a convolution whose filter is channels_last reads and writes so. Returns lines for the
    user.
    """
    if memory_format == "contiguous":
        return []
    convolutions = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    for module in convolutions:
        module.to(memory_format=torch.channels_last)
    if not convolutions:
        return ["memory_format=channels_last changes nothing: the model has no two-dimensional convolution"]
    return [f"{len(convolutions)} convolutions are channels_last"]
