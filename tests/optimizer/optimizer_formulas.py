"""Optimizers as their papers write them, a parameter at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Formula:
    """Groups of params, rate and weight_decay; ``change`` is what is taken from a weight."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = [{**group, "lr": 0.0} for group in groups]
        self.memory: dict[int, dict[str, Any]] = {}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                memory = self.memory.setdefault(id(p), {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)})
                memory["t"] += 1
                p.copy_(self.change(p, p.grad, group["lr"], group["weight_decay"], memory))

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def change(self, w: Tensor, g: Tensor, rate: float, decay: float, memory: dict[str, Any]) -> Tensor:
        raise NotImplementedError


class Lion(Formula):
    """Chen et al. 2023, algorithm 2."""

    def change(self, w: Tensor, g: Tensor, rate: float, decay: float, memory: dict[str, Any]) -> Tensor:
        direction = torch.sign(0.9 * memory["m"] + 0.1 * g)
        memory["m"] = 0.99 * memory["m"] + 0.01 * g
        return w - rate * (direction + decay * w)


class Lamb(Formula):
    """You et al. 2020, algorithm 2; vectors as Adam has them."""

    def change(self, w: Tensor, g: Tensor, rate: float, decay: float, memory: dict[str, Any]) -> Tensor:
        memory["m"] = 0.9 * memory["m"] + 0.1 * g
        memory["v"] = 0.999 * memory["v"] + 0.001 * g * g
        m, v = memory["m"] / (1 - 0.9 ** memory["t"]), memory["v"] / (1 - 0.999 ** memory["t"])
        update = m / (v.sqrt() + 1e-6) + decay * w
        ratio = w.norm() / update.norm() if w.dim() > 1 else 1.0
        return w - rate * ratio * update


class Lars(Formula):
    """You, Gitman and Ginsburg 2017, algorithm 1; vectors as SGD has them."""

    def change(self, w: Tensor, g: Tensor, rate: float, decay: float, memory: dict[str, Any]) -> Tensor:
        own = 0.01 * w.norm() / (g.norm() + decay * w.norm() + 1e-8) if w.dim() > 1 else 1.0
        memory["m"] = 0.9 * memory["m"] + rate * own * (g + decay * w)
        return w - memory["m"]


class ScheduleFree(Formula):
    """Defazio et al. 2024, algorithm 1, with x written out."""

    def change(self, w: Tensor, g: Tensor, rate: float, decay: float, memory: dict[str, Any]) -> Tensor:
        z, x = memory.get("z", w.clone()), memory.get("x", w.clone())
        memory["v"] = 0.999 * memory["v"] + 0.001 * g * g
        step = g / ((memory["v"] / (1 - 0.999 ** memory["t"])).sqrt() + 1e-8) + decay * w
        memory["largest"] = max(memory.get("largest", 0.0), rate)
        memory["sum"] = memory.get("sum", 0.0) + memory["largest"] ** 2
        share = memory["largest"] ** 2 / memory["sum"]
        memory["z"] = z - rate * step
        memory["x"] = (1 - share) * x + share * memory["z"]
        return 0.1 * memory["z"] + 0.9 * memory["x"]


FORMULAS: dict[str, Callable[[list[dict[str, Any]]], Formula]] = {
    "lion": Lion, "lamb": Lamb, "lars": Lars, "schedule_free": ScheduleFree,
}  # fmt: skip
