"""What export/<format>/report.json says, for a terminal and as one line."""

from __future__ import annotations

from typing import Any

from accel_cli.analysis.latency import compared
from accel_cli.analysis.wording import NOTHING, is_finite, number, plain_name, share, size, times

Row = tuple[str, str, str, str]
"""What is compared, PyTorch's, the exported model's, and a remark."""


def line(report: dict[str, Any]) -> str:
    """``onnx, 107 KiB, at batch 1 3.1 times quicker [2.9, 3.3], outputs differ by 2.4e-07 at most: runs/x/onnx``"""
    said = [str(report.get("format")), *([size(report["bytes"])] if report.get("bytes") else [])]
    if at_one := compared((report.get("latency") or {}).get("1")):
        said.append(f"at batch 1 {at_one.verdict}")
    differences = [split.get("largest_difference") for split in (report.get("splits") or {}).values()]
    if found := [value for value in differences if is_finite(value)]:
        said.append(f"outputs differ by {number(max(found), 2)} at most")
    return ", ".join(said) + (f": {report['folder']}" if report.get("folder") else "")


def rows(report: dict[str, Any]) -> list[Row]:
    """A row for each thing that both have, and one a split for how far their outputs are apart."""
    found: list[Row] = []
    for name, split in (report.get("splits") or {}).items():
        metric, one, other = report.get("metric"), split.get("pytorch") or {}, split.get("exported") or {}
        label = f"{name} {plain_name(metric)}"
        found.append(
            (label, number(one.get(metric)), number(other.get(metric)), f"{number(split.get('samples'))} samples")
        )
    if ratio := _ratio(report.get("bytes"), report.get("pytorch_bytes")):
        sizes = size(report.get("pytorch_bytes")), size(report.get("bytes"))
        found.append(("size", *sizes, f"{times(ratio)} the size"))
    for batch, taken in (report.get("latency") or {}).items():
        if said := compared(taken):
            found.append((f"latency, batch {batch}", *said))
    for name, split in (report.get("splits") or {}).items():
        found.append((f"{name} outputs", "", *_apart(split)))
    return found


def about(report: dict[str, Any]) -> str:
    """Which weights, which programs, how many threads; and what the format adds."""
    versions = [f"{name} {text}" for name, text in (report.get("versions") or {}).items() if text]
    facts = [f"{plain_name(key)} {_fact(value)}" for key, value in (report.get("facts") or {}).items()]
    threads, trained_in = report.get("threads"), report.get("trained_in")
    here = [] if trained_in in (None, "fp32") else [f"trained in {trained_in} and compared in fp32"]
    said = [str(report.get("checkpoint") or NOTHING), *here, *facts, *versions]
    return ", ".join([*said, *([f"{threads} thread{'s' * (threads != 1)}"] if threads else [])])


def _apart(split: dict[str, Any]) -> tuple[str, str]:
    relative, equal, lost = (split.get(key) for key in ("relative_difference", "equal_predictions", "not_numbers"))
    said = [f"{number(relative, 2)} of the largest output"]
    if equal is not None:
        said.append(f"{'all' if equal == 1 else share(equal) if equal < 0.99 else f'{equal:.3%} of'} predictions equal")
    if lost:
        said.append(f"{number(lost)} outputs are numbers in one only")
    return f"differ by {number(split.get('largest_difference'), 2)}", ", ".join(said)


def _ratio(one: Any, other: Any) -> float | None:
    return one / other if is_finite(one) and is_finite(other) and one and other else None


def _fact(value: Any) -> str:
    return number(value) if not isinstance(value, dict | list) else str(value)
