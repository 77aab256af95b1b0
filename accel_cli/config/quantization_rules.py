"""Rules about layers that compute with rounded numbers."""

from __future__ import annotations

from typing import Any

from accel_cli.config.facts import Facts, Rule

LOWERED = ("fp8", "mxfp8")
"""Precisions that put layers of their own in the place of linear ones."""


def _qat(facts: Facts) -> Any:
    return facts.run.compression.get("qat")


def _ptq(facts: Facts) -> Any:
    return facts.run.compression.get("ptq")


QUANTIZATION_RULES: tuple[Rule, ...] = (
    Rule(
        "quantized-once", "refuse", "a layer is quantized once",
        "compression=[qat,ptq]",
        lambda f: _qat(f) is not None and _ptq(f) is not None,
        "after qat every layer has its integers: ptq would find nothing left",
        "try compression=qat",
    ),
    Rule(
        "quantized-or-eight-bit", "refuse", "a linear layer is in fp8 or quantized",
        lambda f: f"compression={'qat' if _qat(f) else 'ptq'} precision={f.run.precision.option}",
        lambda f: (_qat(f) or _ptq(f)) is not None and f.run.precision.option in LOWERED,
        lambda f: f"precision={f.run.precision.option} puts layers of its own in the place of linear ones",
        "try precision=bf16",
    ),
    Rule(
        "packed-weights-alone", "refuse", "weights of four bits are those of mode=weight_only",
        lambda f: f"compression.passes.ptq.bits=4 compression.passes.ptq.mode={_ptq(f).mode}",
        lambda f: _ptq(f) is not None and _ptq(f).bits == 4 and _ptq(f).mode != "weight_only",
        "no runtime multiplies integers of four bits",
        "try compression.passes.ptq.mode=weight_only",
    ),
    Rule(
        "qat-needs-weights", "warn", "ranges are calibrated on a model that has learnt something",
        "compression.passes.qat.start=0",
        lambda f: _qat(f) is not None and _qat(f).start == 0 and f.run.transfer.option == "none",
        "ranges and statistics of an untrained model are not those that it will have",
        "try compression.passes.qat.start=0.7, or transfer=finetune",
    ),
)  # fmt: skip
