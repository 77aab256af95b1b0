"""profile.enabled=true: a trace that Perfetto opens, and a flame graph where a tool is installed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ranks import train_ranks

from accel_cli.engine import flame

RUN = ["data=digits", "model=mlp", "model.widths=[32]", "train.epochs=null", "profile.enabled=true"]
TOOL = """#!/bin/sh
printf '<svg>'; tail -n 1 "$3"; printf '</svg>'
"""


def events_of(*spans: tuple[str, int, int, str]) -> list[dict[str, object]]:
    return [{"ph": "X", "cat": "cpu_op", "tid": t, "ts": b, "dur": e - b, "name": n} for t, b, e, n in spans]


def test_the_trace_is_one_that_perfetto_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format: a list of events, complete ones with begin and duration, flows with both ends."""
    monkeypatch.setenv("PATH", "")
    summary = train_ranks([*RUN, "train.steps=12"], tmp_path)
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    events = trace["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert all(isinstance(event["name"], str) and event["ts"] >= 0 and event["dur"] >= 0 for event in spans)
    assert all({"pid", "tid"} <= set(event) for event in spans)
    flows = {end: {event["id"] for event in events if event["ph"] == end} for end in "sf"}
    assert flows["s"] == flows["f"]
    steps = [event["name"] for event in spans if event["name"].startswith("ProfilerStep#")]
    assert sorted(set(steps)) == [f"ProfilerStep#{number}" for number in range(5, 10)]
    assert any(event["name"] == "aten::addmm" for event in spans)
    assert any("step.py" in event["name"] for event in spans)  # calls, by their files
    stacks = (tmp_path / "profile" / "stacks.txt").read_text().splitlines()
    assert any("forward_backward" in line and "aten::addmm" in line for line in stacks)
    assert "0x" not in " ".join(stacks)
    assert all(line.rpartition(" ")[2].isdecimal() for line in stacks)
    assert not (tmp_path / "profile" / "flame.svg").exists()
    assert summary["time_share"]["optimizer"] < 0.7  # writing the trace, 0.1 s and more, is no part of it


def test_a_short_run_leaves_no_trace_and_fails_in_nothing(tmp_path: Path) -> None:
    assert train_ranks([*RUN, "train.steps=3"], tmp_path)["status"] == "completed"
    assert not list((tmp_path / "profile").iterdir())


def test_time_is_counted_once_where_it_was_spent() -> None:
    events = events_of(
        ("1", 0, 5, "before"), ("1", 10, 110, "ProfilerStep#5"), ("1", 20, 60, "a;b"), ("1", 30, 50, "aten::mm"),
        ("1", 60, 70, "aten::mm"), ("2", 40, 50, "aten::mm"), ("2", 120, 150, "after"),
    )  # fmt: skip
    assert flame.folded(events) == [
        "thread 1;step 50",
        "thread 1;step;a,b 20",
        "thread 1;step;a,b;aten::mm 20",
        "thread 1;step;aten::mm 10",
        "thread 2;aten::mm 10",
    ]


@pytest.mark.parametrize("installed", [True, False])
def test_a_tool_draws_it_where_one_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if installed:
        tool = tmp_path / "flamegraph.pl"
        tool.write_text(TOOL)
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if installed else os.devnull)
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"traceEvents": events_of(("1", 0, 9, "ProfilerStep#5"), ("1", 2, 5, "x"))}))
    said = flame.draw(trace)
    assert (tmp_path / "stacks.txt").read_text() == "thread 1;step 6\nthread 1;step;x 3\n"
    if installed:
        assert (tmp_path / "flame.svg").read_text() == "<svg>thread 1;step;x 3\n</svg>"
        assert "drawn by flamegraph.pl" in said
    else:
        assert "no flame graph: none of inferno-flamegraph, flamegraph.pl is installed" in said
