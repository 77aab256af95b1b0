"""A tune in the terminal: a line a candidate, what each chosen setting bought, and the line to type."""

from __future__ import annotations

from typing import Any

from accel_cli.analysis.result import count, ratio_text
from accel_cli.analysis.wording import NOTHING, number, size
from accel_cli.cli.table import columns


def lines(content: dict[str, Any]) -> list[str]:
    rows = [["setting", "time of a step", "step", "memory", ""]]
    for row in content["candidates"]:
        said = row["status"] + (f": {row['cause']}" if row["cause"] else "")
        rows.append([f"  {row['name']}", ratio_text(row["ratio"]), *_facts(row), said])
    if content["bought"]:
        rows.append(["bought, beside the others", "", "", "", ""])
    for row in content["bought"]:
        said = row["verdict"] if row["status"] == "measured" else f"{row['status']}: {row['cause']}"
        rows.append([f"  {row['technique']}", ratio_text(row["ratio"]), *_facts(row), said])
    found = columns(rows).splitlines()
    for finalist in content["finalists"]:
        found.append(f"  {' '.join(finalist['words'])}: {_finalist(finalist)}")
    return found


def headline(content: dict[str, Any], folder: str) -> str:
    chosen = content["chosen"]
    if not chosen["words"]:
        out = [f"keeps to the run as it stands: nothing that was tried is better for {content['objective']}"]
    else:
        ratio = chosen["ratio"]
        said = f"a step takes {ratio_text(ratio)} of its time before" if ratio else "not timed to the end"
        out = [f"{' '.join(chosen['words'])}: {said}{_metric(chosen['metric'])}"]
    if content["status"] == "budget":
        out.append(f"the budget of {content['budget_seconds'] / 60:g} minutes was spent before all was told")
    out.append(chosen["command"])
    return "\n".join([*out, f"{'recipe' if chosen['recipe'] else 'tune'}  {folder}/{chosen['recipe'] or 'tune.json'}"])


def _finalist(finalist: dict[str, Any]) -> str:
    seconds = finalist["seconds_to_target"]
    found = [count(finalist["seeds"], "seed")]
    if seconds:
        found.append("to the target in " + ", ".join("not" if s is None else f"{s:.2f} s" for s in seconds))
    found.append(_metric(finalist["metric"]).lstrip(", "))
    found.append("chosen" if finalist["wins"] else finalist["cause"] or "not taken")
    return "; ".join(text for text in found if text)


def _metric(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return ""
    difference = metric["difference"]
    ends = [difference["low"], difference["high"]]
    between = "" if None in ends else f" [{ends[0]:+.4f}, {ends[1]:+.4f}]"
    return f", {metric['name']} {difference['value']:+.4f}{between}, floor: {metric['floor']}"


def _facts(row: dict[str, Any]) -> list[str]:
    memory, step = row["peak_memory_bytes"] or {}, row["step_milliseconds"]
    peak = memory.get("device") or memory.get("host")
    return [f"{number(step, 3)} ms" if step else NOTHING, size(peak) if peak else NOTHING]
