"""What a gate measured: is this slower than its baseline, beyond noise?"""

from __future__ import annotations

from accel_cli.analysis.findings import Cell, Findings, Part, Table
from accel_cli.analysis.interval_plot import PlotRow, interval_plot
from accel_cli.analysis.result import Result, finite_or, interval, part_of, ratio_text, spread, words_of
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.technique_rows import AXIS
from accel_cli.analysis.wording import NOTHING, is_finite, number

ALLOWED = 0.05


def findings(result: Result) -> Findings:
    data = result.data
    ratio, floor = interval(data.get("ratio")), interval(data.get("floor"))
    allowed = finite_or(data.get("max_slowdown"), ALLOWED)
    said = str(data.get("verdict") or "no verdict yet")
    tone = {"hurts": "bad", "slower": "bad", "failed": "bad", "cannot tell": "warning"}.get(said, "good")
    verdict = Cell(said, tone if data.get("verdict") else "badge")  # type: ignore[arg-type]
    rows = [PlotRow("baseline against itself", floor, Cell("floor", "badge"), code=False)] if floor else []
    rows += [PlotRow("now against the baseline", ratio, verdict, code=False)] if ratio else []
    samples = [
        [Cell(str(arm)), Cell(number(len(values))), Cell(_milliseconds(values))]
        for arm, values in part_of(data.get("samples")).items()
        if isinstance(values, list)
    ]
    table = Table(["arm", "measured", "milliseconds a step: mean, lowest to highest"], samples) if samples else None
    headline = f"A step takes {ratio_text(ratio)} times as long as the baseline's: {said}." if ratio else f"{said}."
    return Findings(
        title="Bench against a baseline",
        status=result.status,
        sentences=[headline[:1].upper() + headline[1:], f"A slowdown of {100 * allowed:.2g}% is allowed."],
        remarks=[f"baseline: {words_of(data['baseline'])}"] if data.get("baseline") else [],
        parts=[Part("Against the baseline", [interval_plot(rows, allowed, AXIS)] if rows else [], table)],
        commands=[result.command] if result.command else [],
        notes=result.notes,
    )


def runs(result: Result) -> list[tuple[str, RunFolder]]:
    """A bench keeps none."""
    return []


def _milliseconds(values: list[object]) -> str:
    found = spread([value * 1e3 for value in values if is_finite(value)])  # type: ignore[operator]
    return found.text(".4g") if found else NOTHING
