"""Recipes from anyone: whatever the file holds, a refusal in well under a second, naming the file."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from doors import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from accel_cli.config.tree import read_yaml
from accel_cli.errors import ConfigError

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CONTENTS = {
    "not utf-8": b"train: {seed: \xff\xfe}",
    "binary": bytes(range(256)) * 10,
    "10 MB": b"# " + b"x" * 10_000_000,
    "deep": b"model: " + b"[" * 2_000 + b"]" * 2_000,
    "deep braces": b"{a: " * 2_000 + b"1" + b"}" * 2_000,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(2_000)),
    "alias bomb": BOMB.encode(),
    "recursive alias": b"model: &a {args: *a}",
    "recursive list": b"model: {args: {x: &a [*a]}}",
    "duplicate key": b"train: {seed: 1, seed: 2}",
    "tab": b"train:\n\tseed: 1\n",
    "list": b"- train\n",
    "word": b"train",
    "python object": b"train: !!python/object/apply:os.system [true]",
    "odd key": b"? [a, b]\n: 1\n",
    "two documents": b"train: {}\n---\ntrain: {}\n",
    "unclosed": b"train: {seed: 1",
    "resolver": b"train: {seed: '${oc.env:HOME}'}",
    "reference": b"train: {seed: '${train.nothing}'}",
    "broken reference": b"train: {seed: '${'}",
    "circle": b"train: {seed: '${train.base_batch}', base_batch: '${train.seed}'}",
    "huge number": b"train: {seed: " + b"9" * 5_000 + b"}",
    "nan": b"train: {epochs: .nan}",
    "number for a key": b"1: 2",
    "null for a key": b"null: 2",
    "hydra": b"hydra: {run: {dir: x}}",
    "package": b"# @package model\nx: 1",
    "defaults": b"defaults: {a: b}",
}


@pytest.mark.flaky(reruns=2)
@pytest.mark.parametrize("name", CONTENTS)
def test_a_hostile_recipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(CONTENTS[name])
    began = time.perf_counter()
    problems = refused(f"+recipe={path}")
    assert time.perf_counter() - began < 1
    assert str(path) in problems[0].where


def test_code_in_a_recipe_is_refused_for_security(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for text in ("_target_: os.system", "model: {args: {a: [{_target_: os.system}]}}", "train: {_args_: [1]}"):
        path.write_text(text)
        assert str(path) in refused(f"+recipe={path}", code=8)[0].where


@pytest.mark.flaky(reruns=2)
def test_what_is_no_file(tmp_path: Path) -> None:
    pipe, sealed = tmp_path / "pipe.yaml", tmp_path / "sealed.yaml"
    os.mkfifo(pipe)
    sealed.write_text("train: {seed: 1}")
    sealed.chmod(0)
    paths = [str(tmp_path), str(pipe), "/dev/zero", str(tmp_path / "a.yaml"), f"{tmp_path}/{'x' * 300}.yaml"]
    for path in [*paths, *([str(sealed)] if os.geteuid() else [])]:
        began = time.perf_counter()
        assert refused(f"+recipe={path}")[0].where.endswith(path[-20:])
        assert time.perf_counter() - began < 1


def test_good_yaml_is_read_as_hydra_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("\ufeffa: 1e-3\nb: [1, 2.5]\nc: 2024-01-01\nbase: &b {x: 1}\nd: {<<: *b, y: 2}\n", encoding="utf-8")
    assert read_yaml(path) == {
        "a": 0.001, "b": [1, 2.5], "c": "2024-01-01", "base": {"x": 1}, "d": {"x": 1, "y": 2},
    }  # fmt: skip


@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=some.one_of(some.binary(max_size=200), some.text("{}[]:,&*!'\"#-? \n\tabc1.$", max_size=80).map(str.encode))
)
def test_any_bytes_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml(path), dict)
