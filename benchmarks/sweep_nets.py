"""A model of one's own that sleeps, fails at a batch of 13, and asks for too much memory at one of 48."""

import time

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=10, delay=0.01):
        super().__init__()
        self.layer, self.delay = nn.Linear(64, classes), delay

    def forward(self, x):
        if self.training:
            time.sleep(self.delay)
            if len(x) == 13:
                raise ValueError("thirteen")
            if len(x) == 48:
                torch.ones(1 << 30)
        return self.layer(x.flatten(1))
