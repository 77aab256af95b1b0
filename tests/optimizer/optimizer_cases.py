"""The optimizers as a run builds them, and a small network to train with them."""

from pathlib import Path

import torch
import yaml
from torch import nn

from accel_cli.config.parts import implementation, table
from accel_cli.optimizer.groups import parameter_groups

CONFIGS = Path(__file__).parents[2] / "configs/optimizer"
CPU = torch.device("cpu")


def configured(option: str, **overrides):
    values = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text())
    return table("optimizer")[option].schema.model_validate({"option": option, **values, **overrides})


def build(option: str, model: nn.Module, rates=None, **overrides):
    config = configured(option, **overrides)
    return implementation("optimizer", config)(config, parameter_groups(model, config, rates or {}), CPU)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))


def train(model: nn.Module, optimizer, steps: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator)
        loss = (model(inputs) - inputs[:, :3].sin()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.detach()
