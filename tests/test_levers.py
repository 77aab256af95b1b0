"""The law of levers: every option of hardware, precision, compile, schedule, loader and transfer runs and resumes bit
for bit, or is refused with what to type. Optimizers have theirs in tests/optimizer/test_optimizer_runs.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import train_ranks
from test_resume import assert_equal_runs, back_to

from accel_cli.config.parts import table
from accel_cli.config.plan import plan
from accel_cli.errors import ConfigError, Problem

GROUPS = ("hardware", "precision", "compile", "schedule", "loader", "transfer")
RUN = [
    "hardware=cpu", "data=digits", "model=mlp", "model.widths=[64,64]", "train.global_batch=32", "train.epochs=null",
    "train.steps=4", "metrics.every=1", "evaluate.every=2", "checkpoint.every=2", "checkpoint.keep_last=10",
]  # fmt: skip
ON_DEVICE = ["hardware=auto", "train.determinism=exact"]
"""The best device here, which repeats a run bit for bit only if asked to."""
WORDS = {
    ("precision", "fp8"): ["precision.min_size=16"],
    ("compile", "full"): ["compile.backend=aot_eager"],
    ("compile", "blocks"): ["compile.backend=aot_eager"],
    ("schedule", "custom"): ["schedule.factory=test_levers:halving"],
    ("precision", "tf32"): ON_DEVICE,
    ("precision", "mxfp8"): [*ON_DEVICE, "precision.min_size=32"],
    **{("hardware", name): ["train.determinism=exact"] for name in table("hardware")},
}  # fmt: skip
"""What an option needs beside its name, or what keeps it short; max_autotune compiles for real."""
ELSEWHERE = {
    *(("hardware", name) for name in ("cuda", "mps", "xpu", "tpu")),
    *(("precision", name) for name in ("tf32", "mxfp8")),
    ("loader", "stream"),
}
"""Options that a machine may lack the device for; and one for other data, whose law is in test_data_shards.py."""


def halving() -> object:
    return lambda step, steps: 0.5**step


def merged(words: list[str]) -> list[str]:
    """Of two overrides of one key the later."""
    return list({word.partition("=")[0]: word for word in words}.values())


def refusals(words: list[str]) -> list[Problem]:
    try:
        plan(words, plugins=["test_levers"])
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in table(group)])
def test_it_runs_and_resumes_or_is_refused(tmp_path: Path, group: str, option: str) -> None:
    words = merged([*RUN, *WORDS.get((group, option), []), f"{group}={option}"])
    if refused := refusals(words):
        assert all(problem.where and problem.why and problem.fix for problem in refused)
        assert any(f"{group}={option}" in problem.where for problem in refused)
        assert (group, option) in ELSEWHERE
        return
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks(words, straight, plugins=["test_levers"])
    back_to(2, straight, resumed)
    summary = train_ranks([], resumed, resume=True, plugins=["test_levers"])
    assert (summary["steps"], summary["attempts"]) == (4, 2)
    assert_equal_runs(resumed, straight, 4)
