"""What slows a run on purpose, as a user's own code: a data set that sleeps, and an optimizer in Python."""

import time

import torch


class Set(torch.utils.data.Dataset):
    """Reading a sample takes two milliseconds; drawn anew at each read where that is asked for."""

    classes = ["below", "above"]

    def __init__(self, split, samples=200, draws=False):
        generator = torch.Generator().manual_seed(len(split))
        self.inputs = torch.randn(samples if split == "train" else samples // 10, 64, generator=generator)
        self.targets = (self.inputs[:, 0] > 0).long()
        self.seconds, self.draws = 0.002 if split == "train" else 0, draws

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return self.inputs[index] + (torch.randn(64) if self.draws else 0), self.targets[index]


class Steps(torch.optim.Optimizer):
    """SGD, row by row."""

    def __init__(self, groups, lr):
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                for row, gradient in zip(parameter, parameter.grad, strict=True):
                    row -= group["lr"] * gradient
