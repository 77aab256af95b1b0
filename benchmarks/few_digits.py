"""Digits of some classes only, and few of them: data.factory=few_digits:Digits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from accel_cli.data.digits import read_digits


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """Images [1, 8, 8] of 0 to 1, numbered by their place in ``classes``. Of the samples, in an order that follows from
    ``seed``, the first third is test, the second validation, and ``train`` of the last are for training; null: all."""

    def __init__(self, split: str, classes: list[int], seed: int, train: int | None = None) -> None:
        images, digits = (torch.from_numpy(array) for array in read_digits())
        chosen = torch.cat([(digits == digit).nonzero().flatten() for digit in classes])
        chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))]
        third = len(chosen) // 3
        if split == "train":
            chosen = balanced(chosen[2 * third :], digits, classes, train)
        else:
            chosen = chosen[:third] if split == "test" else chosen[third : 2 * third]
        self.classes = [str(digit) for digit in classes]
        self.images = images[chosen].float() / 16
        self.targets = torch.tensor([classes.index(int(digit)) for digit in digits[chosen]])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]


def balanced(chosen: Tensor, digits: Tensor, classes: list[int], count: int | None) -> Tensor:
    """The first ``count`` that have as many of each class."""
    if count is None:
        return chosen
    each = [chosen[digits[chosen] == digit][: count // len(classes)] for digit in classes]
    return torch.cat(each)
