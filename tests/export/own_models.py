"""Models that cannot be exported, each for another reason; and one whose output is an object."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.layer = nn.Linear(64, outputs)

    def forward(self, images: Tensor) -> Any:
        return self.layer(images.flatten(1))


class Branch(Net):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if logits.sum() > 0:  # the branch
            logits = logits * 2
        return logits


class Triangular(Net):
    def __init__(self) -> None:
        super().__init__(16)

    def forward(self, images: Tensor) -> Tensor:
        _, _, upper = torch.linalg.lu(super().forward(images).view(-1, 4, 4))  # the product
        return upper.flatten(1)[:, :10]


class OneByOne(Net):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in images])


@torch.library.custom_op("accel_test::twice", mutates_args=())
def twice(numbers: Tensor) -> Tensor:
    return numbers * 2


@torch.library.custom_op("accel_test::thrice", mutates_args=())
def thrice(numbers: Tensor) -> Tensor:
    return numbers * 3


@thrice.register_fake
def _(numbers: Tensor) -> Tensor:
    return torch.empty_like(numbers)


class Untraceable(Net):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            scale = twice(super().forward(images))  # the custom operation
        return super().forward(images) + scale


class Foreign(Net):
    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            scale = thrice(super().forward(images))  # the custom operation
        return super().forward(images) + scale


class Answer(NamedTuple):
    logits: Tensor


class Speaking(Net):
    def forward(self, images: Tensor) -> Answer:
        return Answer(super().forward(images))
