from typing import Any

import pytest
from run_builder import settings, summary

from accel_cli.analysis.advice import TABLE, advise
from accel_cli.analysis.facts import Facts

CPU = {"cores": 2, "gpus": [], "cpu_flags": ["avx2"]}
H200 = {"name": "NVIDIA H200", "memory_bytes": 150_000_000_000, "capability": [9, 0]}
V100 = {"name": "V100", "memory_bytes": 32_000_000_000, "capability": [7, 0]}
SHARES = summary()["time_share"]
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("optimizer.learning_rate=0.001", {"status": "diverged"}, {}, CPU),
    ("hardware=cuda", {}, {}, {**CPU, "gpus": [H200]}),
    ("strategy=ddp", {"device": "cuda", "precision": "bf16"}, {}, {**CPU, "gpus": [H200, H200]}),
    ("precision=bf16", {"device": "cuda"}, {}, {**CPU, "gpus": [H200]}),
    ("precision=fp16", {"device": "cuda"}, {}, {**CPU, "gpus": [V100]}),
    ("precision=fp32", {"precision": "bf16"}, {"precision": "bf16"}, CPU),
    ("loader=memory", {"time_share": {**SHARES, "data": 0.4}}, {"loader": "workers"}, CPU),
    ("evaluate.every=200", {"time_share": {**SHARES, "evaluation": 0.3}}, {}, CPU),
    ("evaluate.every=200", {"time_share": {**SHARES, "evaluation": 0.3}}, {"evaluate__every": 50}, CPU),
    ("checkpoint.every=200", {"time_share": {**SHARES, "checkpoint": 0.2}}, {}, CPU),
    ("train.global_batch=256", {"time_share": {**SHARES, "communication": 0.4}}, {}, CPU),
    ("train.global_batch=256", {"step_milliseconds": {"median": 0.7, "p95": 1.0}}, {}, CPU),
    ("compile=none", {"one_off_seconds": {"compile": 6.0}}, {"compile": "full"}, CPU),
    ("stopping=early", {"metric": {"name": "accuracy", "best": 0.9, "best_step": 500}}, {}, CPU),
    ("train.epochs=20", {"metric": {"name": "accuracy", "best": 0.9, "best_step": 1000}}, {}, CPU),
]


@pytest.mark.parametrize(("override", "said", "chosen", "machine"), CASES)
def test_each_row_speaks_when_it_should(
    override: str, said: dict[str, Any], chosen: dict[str, Any], machine: dict[str, Any]
) -> None:
    rows = advise(summary(**said), settings(**chosen), machine)
    assert [row["override"] for row in rows] == [override]
    assert set(rows[0]) == {"finding", "evidence", "override", "expected"}


def test_every_row_has_a_case() -> None:
    spoken = set()
    for _, said, chosen, machine in CASES:
        facts = Facts(summary(**said), settings(**chosen), machine)
        spoken |= {row.finding for row in TABLE if row.when(facts)}
    assert spoken == {row.finding for row in TABLE}


def test_nothing_stands_out() -> None:
    assert advise(summary(), settings(), CPU) == [
        {
            "finding": "nothing stands out",
            "evidence": "the largest part of the time is backward, 41%",
            "override": None,
            "expected": None,
        }
    ]


def test_the_best_comes_first_with_amdahls_bound() -> None:
    shares = {**SHARES, "data": 0.3, "evaluation": 0.4}
    rows = advise(summary(time_share=shares), settings(loader="workers"), CPU)
    assert [row["override"] for row in rows] == ["evaluate.every=200", "loader=memory"]
    assert rows[0]["evidence"] == "40% of the time went to evaluation; at most 1.7x"
    assert rows[1]["evidence"] == "30% of the time went to data; at most 1.4x"


def test_no_gain_is_promised_that_does_not_follow_from_a_share() -> None:
    rows = advise(summary(device="cuda"), settings(), {**CPU, "gpus": [H200]})
    assert "at most" not in str(rows)


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({"time_share": {**SHARES, "data": 0.9}}, {"loader": "memory"}),
        ({"time_share": {**SHARES, "data": 0.9}}, {"loader": "workers", "data": "custom"}),
        ({"time_share": {**SHARES, "evaluation": 0.9}}, {"evaluate__every": 1000}),
        ({"metric": {"name": "accuracy", "best": 0.9, "best_step": 100}}, {"stopping": "early"}),
        ({"device": "cuda", "precision": "bf16"}, {"precision": "auto"}),
        ({"step_milliseconds": {"median": 0.7}, "samples": 1280}, {}),
    ],
)
def test_never_what_is_set_or_cannot_be(said: dict[str, Any], chosen: dict[str, Any]) -> None:
    rows = advise(summary(**said), settings(**chosen), {**CPU, "gpus": [H200] if "device" in said else []})
    assert [row["override"] for row in rows] == [None]


COSTS = {"step": 0.01, "evaluation": 0.05, "checkpoint": 0.1, "evaluate_every": 10, "checkpoint_every": 100}
"""A step with its part of the rest takes 16 ms, 5 of them evaluation, 1 checkpoints."""
DATA = {"part": "data", "override": "loader=memory", "own": 0.01, "other": 0.002, "read": 0.000125, "once": 4.0}
BATCH = {"part": "batch", "override": "train.global_batch=256", "own": 0.006, "other": 0.008, "times": 4}
OPTIMIZER = {"part": "optimizer", "override": "optimizer.kernel=auto", "own": 0.004, "other": 0.0024}
LINK = {"part": "communication", "override": "communication=bf16", "own": 0.008, "other": 0.0048, "bytes": 2e6,
        "other_bytes": 1e6, "rate": 1e7}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (DATA, 8 / 16),
        (OPTIMIZER, 1 - 1.6 / 16),
        (LINK, 1 - 3.2 / 16),
        # forward and backward as measured, three more times the data's 1.28 ms; evaluation and checkpoint by the step
        (BATCH, (10 - 6 + 8 + 3 * 1.28 + 5 + 1) / 4 / 16),
        ({**BATCH, "gathered": True}, (10 - 6 + 8 + 5 + 1) / 4 / 16),
    ],
)
def test_what_was_measured_says_what_is_left_of_the_time(row: dict[str, Any], expected: float) -> None:
    first = advise(summary(costs=COSTS, what_if=[row]), settings(evaluate__every=10), CPU)[0]
    assert first["override"] == row["override"]
    assert first["expected"] == pytest.approx(expected, abs=1e-4)


def test_an_epochs_beat_comes_as_often_by_the_sample() -> None:
    costs = {**COSTS, "evaluate_every": 100, "evaluation": 0.5}
    first = advise(summary(costs=costs, what_if=[{**BATCH, "gathered": True}]), settings(), CPU)[0]
    assert first["expected"] == pytest.approx((10 - 6 + 8 + 4 * 5 + 1) / 4 / 16, abs=1e-4)


@pytest.mark.parametrize(
    "row",
    [
        {**DATA, "once": 9.0},  # a thousand steps save 8 s
        {**OPTIMIZER, "other": 0.0036},
        {**BATCH, "other": 0.05},
        {**DATA, "part": "of another version"},
    ],
)
def test_what_does_not_pay_is_not_named(row: dict[str, Any]) -> None:
    assert advise(summary(costs=COSTS, what_if=[row]), settings(), CPU)[0]["override"] is None


def test_rarer_evaluation_leaves_what_follows_from_what_one_takes() -> None:
    shares = {**SHARES, "evaluation": 0.3125}
    found = advise(summary(costs=COSTS, time_share=shares), settings(evaluate__every=10), CPU)[0]
    assert found["override"] == "evaluate.every=50"
    assert found["expected"] == pytest.approx((10 + 1 + 1) / 16, abs=1e-4)


def test_what_helps_most_comes_first_and_what_is_refused_never() -> None:
    rows = [OPTIMIZER, LINK, DATA, {**LINK, "override": "communication=powersgd", "other": 0.001}]
    said = summary(costs=COSTS, what_if=rows)
    words = [row["override"] for row in advise(said, settings(), CPU)]
    assert words == ["loader=memory", "communication=powersgd", "communication=bf16", "optimizer.kernel=auto"]
    assert advise(said, settings(), CPU, lambda override: "memory" not in override)[0]["override"] == words[1]
    assert [row["override"] for row in advise(said, settings(), CPU, lambda override: False)] == [None]


def test_length_is_doubled_in_its_own_unit() -> None:
    improving = summary(metric={"name": "accuracy", "best": 0.9, "best_step": 1000})
    by_samples = settings(train__epochs=None, train__samples=64_000)
    assert advise(improving, by_samples, CPU)[0]["override"] == "train.samples=128000"


def test_says_nothing_of_a_failure_and_little_of_an_empty_summary() -> None:
    assert advise(summary(status="failed"), settings(), CPU) == []
    assert advise({}, {}, {})[0]["override"] is None
