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
    ("evaluate.every=100", {"time_share": {**SHARES, "evaluation": 0.3}}, {"evaluate__every": 50}, CPU),
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
    assert set(rows[0]) == {"finding", "evidence", "override"}


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
        }
    ]


def test_the_best_comes_first_with_amdahls_bound() -> None:
    shares = {**SHARES, "data": 0.3, "evaluation": 0.4}
    rows = advise(summary(time_share=shares), settings(loader="workers"), CPU)
    assert [row["override"] for row in rows] == ["loader=memory", "evaluate.every=200"]
    assert rows[0]["evidence"] == "30% of the time went to data; at most 1.4x"
    assert rows[1]["evidence"] == "40% of the time went to evaluation; at most 1.2x"


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


def test_length_is_doubled_in_its_own_unit() -> None:
    improving = summary(metric={"name": "accuracy", "best": 0.9, "best_step": 1000})
    by_samples = settings(train__epochs=None, train__samples=64_000)
    assert advise(improving, by_samples, CPU)[0]["override"] == "train.samples=128000"


def test_says_nothing_of_a_failure_and_little_of_an_empty_summary() -> None:
    assert advise(summary(status="failed"), settings(), CPU) == []
    assert advise({}, {}, {})[0]["override"] is None
