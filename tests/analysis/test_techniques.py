"""What a ledger compares, and what it refuses to."""

from __future__ import annotations

from typing import Any

import pytest

from accel_cli.analysis.techniques import BASELINE, Row, Techniques, compare, over, split
from accel_cli.errors import ConfigError

THREE = ["metrics.every=7", "precision=bf16", "optimizer=sgd optimizer.learning_rate=0.1"]


def compared(*techniques: str, base: tuple[str, ...] = (), alone: bool = False, unequal: bool = False) -> Techniques:
    return compare(
        techniques, base, plugins=(), config_dirs=(), run=None, alone=alone, unequal_too=unequal
    )  # fmt: skip


def test_alone_together_and_left_out() -> None:
    found = compared(*THREE)
    a, b, c = THREE
    assert found.rows == [
        Row(a, "alone", a, BASELINE),
        Row(b, "alone", b, BASELINE),
        Row(c, "alone", c, BASELINE),
        Row(f"{a} + {b}", "together", f"{a} + {b}", BASELINE),
        Row(f"{a} + {b} + {c}", "together", f"{a} + {b} + {c}", BASELINE),
        Row(a, "left_out", f"{a} + {b} + {c}", f"all but {a}"),
        Row(b, "left_out", f"{a} + {b} + {c}", f"all but {b}"),
        Row(c, "left_out", f"{a} + {b} + {c}", f"{a} + {b}"),
    ]
    full = found.arms[f"{a} + {b} + {c}"].run
    assert (full.metrics.every, full.precision.option, full.optimizer.option) == (7, "bf16", "sgd")
    assert set(found.arms) == {BASELINE, a, b, c, f"{a} + {b}", f"{a} + {b} + {c}", f"all but {a}", f"all but {b}"}


def test_two_need_no_arm_for_what_is_left() -> None:
    a, b = THREE[:2]
    found = compared(a, b)
    assert set(found.arms) == {BASELINE, a, b, f"{a} + {b}"}
    assert Row(a, "left_out", f"{a} + {b}", b) in found.rows


def test_alone_only() -> None:
    found = compared("optimizer=sgd", "optimizer=adam", alone=True)
    assert [row.form for row in found.rows] == ["alone", "alone"]


def test_a_combination_that_cannot_be_is_a_row() -> None:
    """Each runs alone; fsdp with exact communication is all that its rule lets through."""
    found = compared("strategy=fsdp", "communication=powersgd", base=("strategy=ddp", "launch.processes=2"))
    assert "strategy=fsdp + communication=powersgd" in found.refused


@pytest.mark.parametrize(
    ("techniques", "base", "why"),
    [
        (["precison=bf16"], (), "did you mean precision=bf16"),
        (["precision=fp32"], (), "nothing to compare"),
        (["optimizer=sgd", "optimizer=adam"], (), "would be lost"),
        (["train.global_batch=128"], (), "is other work than the baseline's: train.global_batch=128 for 64"),
        (["model=mlp"], (), "is other work"),
        (["precision=bf16 'oops"], (), "' is missing"),
        (["  "], (), "holds no override"),
        (["precision=bf16"], ("modle=mlp",), "did you mean model=mlp"),
        (["precision=bf16"], ("launch.nodes=2", "launch.rendezvous=a:1", "+strategy=ddp"), "timed on this machine"),
    ],
)
def test_refused_before_anything_starts(techniques: list[str], base: Any, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compared(*techniques, base=base)
    assert why in str(caught.value)


def test_unequal_work_is_labelled_where_it_was_asked_for() -> None:
    found = compared("train.global_batch=128", "precision=bf16", unequal=True)
    assert found.unequal["train.global_batch=128"] == ["train.global_batch=128 for 64"]
    assert "precision=bf16" not in found.unequal


def test_what_is_set_again_goes() -> None:
    base = ["loader=workers", "loader.workers=2", "train.epochs=3", "+strategy=ddp"]
    assert over(base, ["loader=memory", "train.epochs=5"]) == ["+strategy=ddp", "loader=memory", "train.epochs=5"]


def test_words_are_split_outside_quotation_marks_and_brackets() -> None:
    text = """model.args={delay: 0.1, name: 'a b'}  +strategy=ddp optimizer.groups=[{match: "x y"}]"""
    assert split(text) == [
        "model.args={delay: 0.1, name: 'a b'}",
        "+strategy=ddp",
        'optimizer.groups=[{match: "x y"}]',
    ]
