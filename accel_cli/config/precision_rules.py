"""Rules about the numbers that a device multiplies, and what they keep."""

from __future__ import annotations

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.precision_candidates import lacking

FORGETS = 0.996
"""1 - 1/256: with a longer memory a running mean in bf16, of 8 bits, does not fall. 2,000 steps after the gradient had
fallen to a hundredth, its root was at 0.82 with 0.999 and at 0.011 with 0.995 (in fp32: 0.29 and 0.012)."""


def _lacks(facts: Facts) -> str | None:
    """Why the device does not have this precision; an absent GPU is said elsewhere."""
    if facts.device == "cuda" and not facts.machine.gpus:
        return None
    return lacking(facts.kernels, facts.device, facts.machine)


def _is_sharded(facts: Facts) -> bool:
    """As a mesh does it: also replicas of what is cut by tensor parallelism are a shard of one."""
    sizes = facts.sizes
    return sizes["shard"] > 1 or (sizes["tensor"] > 1 and sizes["replicate"] * sizes["context"] > 1)


def _gathers(facts: Facts) -> str | None:
    """Why weights cannot be gathered in fp8; None where they can, or need not."""
    precision = facts.run.precision
    if facts.kernels != "fp8" or precision.gather != "fp8":
        return None
    if precision.recipe != "tensorwise":
        return f"recipe={precision.recipe} scales rows, of which a rank holds a part only"
    if facts.sizes["shard"] == 1:
        return f"strategy={facts.run.strategy.option} gathers no weights"
    if facts.sizes["tensor"] > 1:
        return "tensor parallelism cuts the weights first"
    return "train.ema needs scales of its own" if facts.run.train.ema is not None else None


PRECISION_RULES: tuple[Rule, ...] = (
    Rule(
        "slow-bf16", "warn", "bf16 is slow on a processor that does not multiply it",
        "precision=bf16",
        lambda f: f.device == "cpu" and f.kernels == "bf16" and not f.machine.fast_bf16,
        "this processor has no amx_bf16 or avx512_bf16: slower than fp32",
        "try precision=fp32",
    ),
    Rule(
        "slow-fp16", "warn", "fp16 is slow on a processor without avx512_fp16",
        "precision=fp16",
        lambda f: f.device == "cpu" and f.kernels == "fp16" and "avx512_fp16" not in f.machine.cpu_flags,
        "this processor has no avx512_fp16 and converts to and fro: a gpt took 14 times as long as in fp32",
        "try precision=fp32",
    ),
    Rule(
        "fp16-on-mps", "refuse", "loss scaling is not supported on an Apple GPU",
        "precision=fp16",
        lambda f: f.device == "mps" and f.kernels == "fp16",
        "loss scaling is not supported on an Apple GPU",
        "try precision=fp32 or precision=bf16",
    ),
    Rule(
        "precision-in-hardware", "refuse", "tf32, fp8 and mxfp8 are for devices that multiply them",
        lambda f: f"precision={f.kernels}",
        lambda f: _lacks(f) is not None,
        lambda f: str(_lacks(f)),
        lambda f: "try precision=fp32" if f.kernels == "tf32" else "try precision=bf16",
    ),
    Rule(
        "slow-fp8", "warn", "fp8 is slow on a processor",
        "precision=fp8",
        lambda f: f.device == "cpu" and f.kernels == "fp8",
        "a processor multiplies no fp8 in hardware: slower than fp32, for trying it out",
        "try precision=auto",
    ),
    Rule(
        "fp8-compiled", "warn", "fp8 pays only where its casts are compiled",
        lambda f: f"precision={f.kernels}",
        lambda f: f.device == "cuda" and f.kernels in ("fp8", "mxfp8") and f.run.compile.option == "none",
        "every cast is a pass over memory of its own unless it is compiled: slower than bf16",
        "try compile=full",
    ),
    Rule(
        "fp8-gathers", "refuse", "precision.gather=fp8 is about weights that fsdp deals over ranks",
        "precision.gather=fp8",
        lambda f: _gathers(f) is not None,
        lambda f: str(_gathers(f)),
        "try precision.gather=own",
    ),
    Rule(
        "selective-and-sharded", "refuse", "selective recomputation cannot meet FSDP inside a block",
        "train.activation_checkpointing=selective",
        lambda f: f.kernels == "bf16_pure" and _is_sharded(f) and f.run.train.activation_checkpointing == "selective",
        "norms are in fp32, so that fsdp gathers them by themselves, inside a block: torch cannot compute that again",
        "try train.activation_checkpointing=blocks",
    ),
    Rule(
        "average-in-bf16", "refuse", "an average of weights needs more bits than bf16 has",
        lambda f: f"train.ema={f.run.train.ema}",
        lambda f: f.kernels == "bf16_pure" and f.run.train.ema is not None,
        "an average held in bf16 does not move: a step changes it by less than it resolves",
        "try precision=bf16 or train.ema=null",
    ),
    Rule(
        "bf16-forgets", "warn", "a second moment in bf16 needs a short memory",
        lambda f: f"optimizer.beta2={f.run.optimizer.beta2}",
        lambda f: f.kernels == "bf16_pure" and getattr(f.run.optimizer, "beta2", 0.0) > FORGETS,
        "held in bf16 the squared gradient's mean rises, and never falls again: steps shrink for good",
        "try optimizer.beta2=0.99",
    ),
)  # fmt: skip
