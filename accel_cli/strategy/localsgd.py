"""Local SGD: ranks train by themselves, and average their weights every few steps."""

from __future__ import annotations

import torch

from accel_cli.strategy.replicas import Replicas, assign, flat, split


class LocalSGD(Replicas):
    """Post-local SGD (Lin et al. 2018, arXiv 1808.07217): at first every step is averaged, then every ``steps``-th.

    Optimizer state stays each rank's own. With ``steps`` 1 and an optimizer that is linear in the gradient it is ddp.
    """

    @torch.no_grad()
    def agree(self, step: int) -> bool:
        if step >= self.config.warmup_steps and (step + 1) % self.config.steps:
            return False
        if self.parameters:
            mean = self.exchange.exact_mean(flat(self.parameters))
            self.must_be_finite(mean, step)
            assign(self.parameters, split(mean, self.parameters))
        return True
