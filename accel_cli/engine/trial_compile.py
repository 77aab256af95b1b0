"""What ``compile=auto`` becomes: compiled, where that computes the same and pays before the run ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from accel_cli.config.decide import Decision
from accel_cli.config.facts import Facts
from accel_cli.config.machine import detect
from accel_cli.config.rules import refusals
from accel_cli.config.run import Run
from accel_cli.engine.blocks import find_blocks
from accel_cli.engine.measured import keep, key, recall
from accel_cli.engine.trial import Pace, Trial, clearly_faster, milliseconds, race, steps_within
from accel_cli.world import World

SECONDS = 4.0
"""About what the race between compiled and eager steps takes, beside compiling."""
MARGIN = 0.03
LEAST_COMPILE_SECONDS = 5.0
"""Compiling was never seen to take less on a CPU where nothing was known of a model yet."""
MOST_SAVED = 0.6
"""Share of a step that compiling was never seen to save more than."""
MANY = 12
"""Blocks from which on they are compiled one by one: the whole takes longer with each, and runs little faster. On a
CPU a vit of 4 compiled in 26 s as a whole and in 12 s by blocks; a gpt ran 4%, a resnet in bf16 28% slower so."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""By what share of their norm compiled gradients may differ from eager ones; kernels add up in another order."""
BEYOND_DRAWS = 1.5
"""Where dropout draws anew, gradients may differ by this many times what they differ between two seeds."""


def settle_compile(run: Run, hardware: Any, world: World, say: Callable[[str], None]) -> tuple[Run, Decision]:
    """A collective, with the same answer on every rank."""
    eager = run.with_option("compile", "none")
    with Trial(eager, hardware, world) as trial:
        t = trial.training
        pace = race({"eager": trial.step}, hardware, world, 0.5)["eager"]
        mode = "blocks" if len(find_blocks(t.bare, run.train.blocks)) >= MANY else "full"
        steps, name = steps_within(run, t.steps, pace.seconds), key(t, f"compile={mode}")
    compiled = run.with_option("compile", mode)
    if problems := refusals(Facts(compiled, detect(), ("*",))):
        return _settled(eager, f"compile={mode} is refused: {problems[0].why}", {})
    known = recall(world, name)
    if known is None:
        whole = steps * pace.seconds
        if whole * MOST_SAVED < LEAST_COMPILE_SECONDS:
            why = f"the whole run is {whole:.2g} s of steps, less than compiling could give back"
            return _settled(eager, why, {})
        say(f"compiling ({mode}) for a trial: half a minute is common")
        with Trial(compiled, hardware, world) as trial:
            known = _measured(trial, hardware, world)
        keep(world, name, known)
    default, quick = Pace(known["eager"], known["floor"]), Pace(known["compiled"], known["floor"])
    saved = default.seconds - quick.seconds
    pays = math.ceil(known["compile_seconds"] / saved) if saved > 0 else None
    told = f"{mode}: {milliseconds(quick.seconds)} a step, {milliseconds(default.seconds)} eager"
    if known["difference"] > known["allowed"]:
        apart = f"compiled gradients differ from eager ones by {known['difference']:.1g} of their norm"
        return _settled(eager, f"{apart}; at most {known['allowed']:.1g} is let pass", known)
    if pays is None or not clearly_faster(quick, default, MARGIN):
        return _settled(eager, f"{told}; not clearly quicker", known)
    told += f"; compiling takes {known['compile_seconds']:.2g} s, pays after {pays:,} steps, this run has {steps:,}"
    return _settled(compiled if pays < steps else eager, told, {**known, "pays_after_steps": pays})


def _measured(trial: Trial, hardware: Any, world: World) -> dict[str, float]:
    """Compile, compare with the same model run as written, and let the two take turns."""
    as_written = trial.training.compiler.as_written

    def eagerly() -> None:
        with as_written():
            trial.step()

    batches = trial.batches()
    with as_written():
        expected = _gradients(trial, batches, seed=0)
        other_draws = _apart(_gradients(trial, batches, seed=1), expected, world)
    began = time.perf_counter()
    found = _gradients(trial, batches, seed=0)
    hardware.synchronize()
    compile_seconds = max(world.gather(time.perf_counter() - began))
    difference = _apart(found, expected, world)
    tolerance = TOLERANCE.get(trial.training.precision.dtype, max(TOLERANCE.values()))
    del expected, found
    paces = race({"eager": eagerly, "compiled": trial.step}, hardware, world, SECONDS)
    return {
        "eager": paces["eager"].seconds,
        "compiled": paces["compiled"].seconds,
        "floor": paces["eager"].floor,
        "compile_seconds": compile_seconds,
        "difference": difference,
        "allowed": max(tolerance, BEYOND_DRAWS * other_draws),
    }


def _gradients(trial: Trial, batches: list[Any], seed: int) -> list[torch.Tensor]:
    """Of one global batch from the same weights, as this rank holds them."""
    t = trial.training
    t.hardware.seed(seed)
    t.strategy.forward_backward(t, batches)
    held = [p.grad.detach() for p in t.parameters if p.grad is not None]
    own = [gradient.to_local() if hasattr(gradient, "to_local") else gradient for gradient in held]
    copies = [gradient.clone() for gradient in own]  # ddp's are views of buckets that the next backward fills
    for parameter in t.parameters:
        parameter.grad = None
    return copies


def _apart(found: list[torch.Tensor], expected: list[torch.Tensor], world: World) -> float:
    """The norm of the difference over that of the expected ones; the largest of all ranks, infinite where none."""
    squares = [(float((a.double() - b.double()).square().sum()), float(b.double().square().sum()))
               for a, b in zip(found, expected, strict=True)]  # fmt: skip
    difference, size = (sum(column) for column in zip(*squares, strict=True))
    own = math.sqrt(difference / size) if size else 0.0
    return max(world.gather(own if math.isfinite(own) else math.inf))


def _settled(run: Run, why: str, known: dict[str, Any]) -> tuple[Run, Decision]:
    measurements = {k: round(v, 7) if isinstance(v, float) else v for k, v in known.items()}
    return run, Decision("compile", run.compile.option, why, measurements)
