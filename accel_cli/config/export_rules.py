"""Rules about the form in which the model leaves the run."""

from __future__ import annotations

from accel_cli.config.facts import Facts, Rule


def _is_fixed_point(facts: Facts) -> bool:
    return any(getattr(one, "power_of_two", False) for one in facts.run.compression.values())


EXPORT_RULES: tuple[Rule, ...] = (
    Rule(
        "fpga-takes-fixed-point", "refuse", "export=fpga writes models of fixed-point numbers",
        "export=fpga",
        lambda f: f.run.export.option == "fpga" and not _is_fixed_point(f),
        "the model is not trained with fixed-point numbers, which is what an FPGA computes with",
        "try compression=qat compression.passes.qat.power_of_two=true",
    ),
)  # fmt: skip
