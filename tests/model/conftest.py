"""Models built the way a run builds them: defaults from the YAML, checked by the schema, by the group's table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional

from accel_cli.config.parts import implementation, table
from accel_cli.description import DataDescription

CONFIGS = Path(__file__).parents[2] / "configs"


def make_config(option: str, **overrides: Any) -> Any:
    defaults = yaml.safe_load((CONFIGS / f"model/{option}.yaml").read_text())
    return table("model")[option].schema(option=option, **{**defaults, **overrides})


def make(option: str, description: DataDescription, **overrides: Any) -> torch.nn.Module:
    config = make_config(option, **overrides)
    return implementation("model", config)(config, description)


def overfit(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, *, steps: int, rate: float) -> float:
    """The loss after training on one batch, as a share of the loss before."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    """One seed; and one thread, because two threads only wait for each other on nets as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def models() -> Any:
    """The three functions above, by name."""

    class Models:
        build = staticmethod(make)
        config = staticmethod(make_config)
        overfit = staticmethod(overfit)

    return Models


@pytest.fixture
def data() -> Any:
    """Descriptions of small data of each kind."""

    class Data:
        digits = DataDescription(input="image", target="class", input_shape=(1, 8, 8), classes=10)
        colour = DataDescription(input="image", target="class", input_shape=(3, 32, 32), classes=10)
        wide = DataDescription(input="image", target="class", input_shape=(3, 8, 12), classes=4)
        depth_map = DataDescription(input="image", target="number", input_shape=(1, 8, 8), outputs=2)
        rows = DataDescription(input="vector", target="class", input_shape=(13,), classes=3)
        prices = DataDescription(input="vector", target="number", input_shape=(13,), outputs=1)
        text = DataDescription(input="tokens", target="next_token", input_shape=(16,), vocabulary=65)
        reviews = DataDescription(input="tokens", target="class", input_shape=(16,), vocabulary=65, classes=2)
        anything = DataDescription(input="other", target="other", input_shape=())

        @staticmethod
        def inputs(description: DataDescription, count: int = 4, device: str | None = None) -> torch.Tensor:
            shape = (count, *description.input_shape)
            if description.input == "tokens":
                return torch.randint(description.vocabulary, shape, device=device)
            return torch.randn(shape, device=device)

    return Data
