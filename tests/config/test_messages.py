"""What a bad word says: where, why and what to type; of all words at once."""

from __future__ import annotations

import pytest
from doors import refused

from accel_cli.errors import LONGEST, Problem, format_problems


@pytest.mark.parametrize(("words", "where", "fix"), [
    ("precison=fp16", "precison=fp16", "did you mean precision=fp16 ?"),
    ("precision=fp61", "precision=fp61", "did you mean precision=fp16 ?"),
    ("strategy=pipelin", "strategy=pipelin", "did you mean strategy=pipeline ?"),
    ("lr=0.1", "lr=0.1", "did you mean optimizer.learning_rate=0.1 ?"),
    ("train.batch_size=32", "train.batch_size=32", "did you mean train.global_batch=32 ?"),
    ("seed=1", "seed=1", "did you mean train.seed=1 ?"),
    ("train.sed=1", "train.sed=1", "did you mean train.seed=1 ?"),
    ("train.determinism=exct", "train.determinism=exct", "did you mean train.determinism=exact ?"),
    ("evaluate.every=epch", "evaluate.every=epch", "did you mean evaluate.every=epoch ?"),
    ("optimizer.momentum=0.9", "optimizer.momentum=0.9", "choose optimizer=sgd"),
    ("train.global_batch=0", "train.global_batch=0", "try train.global_batch="),
    ("train.global_batch=abc", "train.global_batch=abc", "try train.global_batch="),
    ("train.global_batch=1.5", "train.global_batch=1.5", "try train.global_batch="),
    ("train.global_batch=true", "train.global_batch=true", "try train.global_batch="),
    ("train.epochs=nan", "train.epochs=nan", "try train.epochs="),
    ("train.epochs=inf", "train.epochs=inf", "try train.epochs="),
    ("train.epochs=-inf", "train.epochs=-inf", "try train.epochs="),
    ("train.epochs=1e999", "train.epochs=1e999", "try train.epochs="),
    ("train.ema=1", "train.ema=1", "try train.ema=null"),
    ("train.seed=", "train.seed=", "try train.seed=0"),
    ("train.seed=''", "train.seed=''", "try train.seed=0"),
    ("train.seed=???", "train.seed=???", "try train.seed=0"),
    ("train.seed=-1", "train.seed=-1", "try train.seed=0"),
    ("train=5", "train=5", "try train.global_batch=5"),
    ("train.seed", "train.seed", "try train.seed="),
    ("=5", "=5", "see accel list"),
    ("train.seed.x=5", "train.seed.x=5", "set train.seed as a whole"),
    ("model.option=vit", "model.option=vit", "try model=vit"),
    ("~train.seed", "~train.seed", "leave it out"),
    ("strategy=[ddp]", "strategy=[ddp]", "try strategy=ddp"),
    ("strategy@x=ddp", "strategy@x=ddp", "try strategy=ddp"),
    ("hydra.run.dir=x", "hydra.run.dir=x", "leave it out"),
    ("augment=[none,basic]", "augment=[none,basic]", "try augment=[basic]"),
    ("augment.flip=0.1", "augment.flip=0.1", "did you mean augment.transforms.basic.flip=0.1 ?"),
    ("data=text", "data=text", "add data.path=..."),
    ("launch.processes=0", "launch.processes=0", "try launch.processes=auto"),
    ("train.epochs=[1,2", "train.epochs=[1,2", "quote it"),
    ('train.epochs="a', 'train.epochs="a', "close what is open"),
    ("+recipe=nope", "+recipe=nope", "one of:"),
    ("+recipe=nope.yaml", "nope.yaml", "check the path"),
])  # fmt: skip
def test_one_bad_word(words: str, where: str, fix: str) -> None:
    problems = refused(words)
    assert (problems[0].where, len(problems)) == (where, 1 if words != "data=text" else 2)
    assert fix in problems[0].fix


@pytest.mark.parametrize("words", [
    ("train.seed=1", "train.seed=2"),
    ("train.seed=1", "+train.seed=1"),
    ("strategy=ddp", "+strategy=single"),
    ("augment=basic", "augment=[basic]"),
])  # fmt: skip
def test_a_word_given_twice(words: tuple[str, str]) -> None:
    (problem,) = refused(*words)
    assert problem.where == words[1]
    assert words[0] in problem.why


def test_names_types_and_rules_are_told_together() -> None:
    problems = refused("precison=fp16", "train.seed=-1", "launch.processes=3", "optimizer.lr=1")
    assert {p.where for p in problems} == {
        "precison=fp16", "train.seed=-1", "launch.processes=3", "optimizer.lr=1",
    }  # fmt: skip


def test_a_rule_says_nothing_about_what_was_mistyped() -> None:
    assert [p.where for p in refused("strategy=dpp", "launch.processes=2")] == ["strategy=dpp"]
    assert [p.where for p in refused("stratgy=ddp", "launch.processes=2")] == ["stratgy=ddp"]
    assert [p.where for p in refused("train.global_batch=x", "strategy=ddp", "launch.processes=3")] == [
        "train.global_batch=x"
    ]


@pytest.mark.parametrize("word", [
    "model._target_=os.system", "model.args={_target_: os.system}", "model.args.deep.er={a: [{_target_: x}]}",
    "++train._partial_=true", "_target_=os.system",
])  # fmt: skip
def test_code_by_name_is_refused_for_security(word: str) -> None:
    problems = refused("model=custom", "model.factory=nets:Net", word, "train.seed=-1", code=8, plugins=["nets"])
    assert [p.where for p in problems] == [word, "train.seed=-1"]


def test_a_factory_that_nothing_named() -> None:
    (problem,) = refused("model=custom", "model.factory=os:system", code=8)
    assert "--plugin os" in problem.fix
    assert refused("model=custom")[0].fix.startswith("add model.factory=")
    assert refused("model=custom", "model.factory=nets.Net")[0].fix == "try model.factory=nets:Net"


def test_a_table_of_problems_is_readable() -> None:
    text = format_problems([Problem("a=1", "too small", "try a=2"), Problem("longer=1", "too small", "try longer=2")])
    assert text == "2 problems\n  a=1        too small   try a=2\n  longer=1   too small   try longer=2"
    hostile = format_problems([Problem("a=\x1b[31m\n" + "x" * 10_000, "why", "fix")])
    assert len(hostile) < 2 * LONGEST
    assert "\x1b" not in hostile
    assert hostile.count("\n") == 2
