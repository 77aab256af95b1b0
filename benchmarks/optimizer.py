"""The optimizer's step as a run takes it, against torch's default and every kernel that torch has, taking turns.

.venv/bin/python benchmarks/optimizer.py                          every net, every optimizer that torch has too
.venv/bin/python benchmarks/optimizer.py --net vit --optimizer adamw --optimizer muon      some of them
.venv/bin/python benchmarks/optimizer.py around                   clipping, zeroing and the moving average beside it

default / ours is how many times faster ours is than torch.optim's class called with nothing said of kernels, over the
same groups; the floor is the default against itself. best / ours is against the fastest of loop, foreach and fused: at
least 0.98. Equal numbers: weights after 20 steps of both, as a part of the largest.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compare import Ratio, interleave, ratio, table
from torch import nn

from accel_cli.config.parts import implementation
from accel_cli.config.plan import plan
from accel_cli.config.run import Run
from accel_cli.engine.average import MovingAverage
from accel_cli.optimizer.combined import Combined
from accel_cli.optimizer.groups import parameter_groups
from accel_cli.strategy.base import Strategy
from accel_cli.world import World

CPU = torch.device("cpu")
NETS = {
    "resnet": ["model=resnet", "model.width=16", "model.blocks=[3,3,3]"],
    "gpt": ["data=stdlib_text", "data.max_bytes=100000", "model=gpt", "model.width=128", "model.depth=6"],
    "vit": ["model=vit"],
    "mlp": ["model=mlp"],
}
FILTERS = ("resnet",)
"""Nets whose matrices have four dimensions: torch's muon takes two."""
OPTIMIZERS = ["adamw", "adam", "sgd", "adagrad", "nadam", "radam", "rmsprop", "adamax", "adadelta", "asgd", "rprop",
              "muon"]  # fmt: skip
BATCH = 4
"""Steps timed together."""
LEAST = 0.98
"""Of best / ours: never slower than the best of torch's by more than 2%."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("step", "around"), default="step")
    parser.add_argument("--net", action="append", choices=list(NETS))
    parser.add_argument("--optimizer", action="append", choices=OPTIMIZERS)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all samples here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    samples: dict[str, Any] = {}
    rows: list[list[object]] = []
    for name in given.net or NETS:
        run = plan([*NETS[name], "hardware=cpu"]).run
        for option in given.optimizer or (OPTIMIZERS if given.part == "step" else ["adamw", "sgd"]):
            if option == "muon" and name in FILTERS:
                continue
            print(f"{name}: {option}", file=sys.stderr)
            row, samples[f"{name} {option}"] = {"step": step, "around": around}[given.part](run, option, given.rounds)
            rows.append([name, option, *row])
    heads = {
        "step": [
            "tensors",
            "ours, us",
            "default / ours",
            "floor",
            "best of torch",
            "best / ours",
            "equal to",
            f"at least {LEAST}",
        ],
        "around": ["tensors", "step, us", "clip / step", "zero / step", "ema / step", "floor"],
    }
    print(table([["net", "optimizer", *heads[given.part]], *rows]))
    if given.json:
        given.json.write_text(json.dumps(samples, indent=1))


def step(run: Run, option: str, rounds: int) -> tuple[list[object], dict[str, list[float]]]:
    ours, default = Arm(run, option, "auto"), Arm(run, option, None)
    again = Arm(run, option, None)  # its tensors lie elsewhere: what that alone makes of a step is noise too
    arms = {"ours": ours, "default": default, "default again": again, **others(run, option)}
    found = interleave({name: arm.timed for name, arm in arms.items()}, rounds, lambda _: None)
    against, floor = ratio(found["default"], found["ours"]), ratio(found["default again"], found["default"])
    best = min((name for name in arms if name not in ("ours", "default again")), key=lambda name: min(found[name]))
    near = ratio(found[best], found["ours"])
    difference = unequal(Arm(run, option, "auto"), Arm(run, option, None))
    row = [len(ours.parameters), round(min(found["ours"]) * 1e6), against, floor, best, near, f"{difference:.1e}"]
    return [*row, verdict(near, floor)], found


def verdict(near: Ratio, floor: Ratio) -> str:
    if near.low >= LEAST:
        return "holds"
    return "broken" if near.high < LEAST and near.high < floor.low else "cannot tell"


def others(run: Run, option: str) -> dict[str, Arm]:
    found = {}
    for kernel in ("loop", "foreach", "fused") if option != "muon" else ():
        try:
            found[kernel] = Arm(run, option, kernel)
        except Exception:  # torch has none, or the schema knows of none
            continue
    return found


class Arm:
    """A net with gradients and an optimizer over it; ``kernel`` None is torch's class with nothing said of kernels."""

    def __init__(self, run: Run, option: str, kernel: str | None) -> None:
        torch.manual_seed(0)
        self.model = built(run)
        config = run.with_option("optimizer", option).optimizer.model_copy(update={"groups": []})
        groups = parameter_groups(self.model, config, {})
        if kernel is not None:
            config = type(config).model_validate({**config.model_dump(), "kernel": kernel})
        self.optimizer = implementation("optimizer", config)(config, groups, CPU)
        if kernel is None:
            self.optimizer = plain(self.optimizer)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.gradients = [torch.randn_like(p) * 1e-2 for p in self.parameters]
        self.give()
        self.optimizer.step()

    def give(self) -> None:
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def timed(self) -> float:
        """Seconds of one step."""
        return seconds(self.optimizer.step)


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    for _ in range(BATCH):
        call()
    return (time.perf_counter() - begin) / BATCH


def plain(optimizer: Any) -> Any:
    """The same optimizer as torch gives it to one who says nothing: on a CPU a loop over tensors."""
    parts = []
    for part in getattr(optimizer, "parts", (optimizer,)):
        kind = next((c for c in type(part).__mro__ if c.__module__.startswith("torch.optim.")), torch.optim.Optimizer)
        groups = [{k: v for k, v in g.items() if k not in ("foreach", "fused")} for g in part.param_groups]
        if kind is torch.optim.Optimizer:  # our Muon
            keys = ("params", "lr", "weight_decay", "momentum", "nesterov", "ns_steps")
            parts.append(torch.optim.Muon([{k: g[k] for k in keys} for g in groups]))
            continue
        known = inspect.signature(kind).parameters.keys() - {"foreach", "fused"}
        parts.append(kind(groups, **{k: v for k, v in part.defaults.items() if k in known}))
    return parts[0] if len(parts) == 1 else Combined(parts)


def built(run: Run) -> nn.Module:
    data = implementation("data", run.data)(run.data, 0)
    model: nn.Module = implementation("model", run.model)(run.model, data.describe())
    return model


def unequal(one: Arm, other: Arm) -> float:
    """How far the weights are apart after 20 steps of the same gradients, as a part of the largest."""
    for _ in range(20):
        for arm in (one, other):
            arm.optimizer.step()
    pairs = list(zip(one.parameters, other.parameters, strict=True))
    with torch.no_grad():
        return max(float((p - q).abs().max() / q.abs().max().clamp(min=1e-12)) for p, q in pairs)


def around(run: Run, option: str, rounds: int) -> tuple[list[object], dict[str, list[float]]]:
    """What clipping, zeroing and a moving average of the weights cost, as parts of the step."""
    arm = Arm(run, option, "auto")
    strategy = Strategy(None, World(0, 1, 0, 1, CPU))
    average = MovingAverage(arm.model, 0.99)

    def zero() -> None:
        for parameter in arm.parameters:
            parameter.grad = None

    def clip() -> float:
        arm.give()
        return seconds(lambda: strategy.clip(arm.parameters, 1e6))

    def zeroed() -> float:
        found = seconds(zero)
        arm.give()
        return found

    arms = {
        "step": arm.timed, "step again": arm.timed, "clip": clip, "zero": zeroed,
        "ema": lambda: seconds(lambda: average.after_step(0)),
    }  # fmt: skip
    found = interleave(arms, rounds, lambda _: None)
    ratios = [ratio(found[name], found["step"]) for name in ("clip", "zero", "ema", "step again")]
    return [len(arm.parameters), round(min(found["step"]) * 1e6), *ratios], found


if __name__ == "__main__":
    main()
