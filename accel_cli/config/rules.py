"""The rule table: which combinations mean nothing, and the override to type instead. The third door."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accel_cli.config.factory import form_problem, grant_problem
from accel_cli.config.machine import Machine, has_package
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.run import Run
from accel_cli.config.work import nearest_batches
from accel_cli.errors import ConfigError, Problem, SecurityError

INPUT_OF_MODEL = {
    "cnn": "image",
    "resnet": "image",
    "vit": "image",
    "torchvision": "image",
    "timm": "image",
    "gpt": "tokens",
}
"""What a model reads, where its name alone tells."""
TARGET_OF_TASK = {"classification": "class", "regression": "number", "language_model": "next_token"}


@dataclass(frozen=True)
class Facts:
    """All that a rule may judge."""

    run: Run
    machine: Machine
    plugins: Sequence[str] = ()

    @property
    def processes(self) -> int:
        return int(self.run.launch.processes)

    @property
    def device(self) -> str:
        return str(self.run.hardware.option)

    @property
    def kernels(self) -> str:
        return str(self.run.precision.option)


Text = str | Callable[[Facts], str]


@dataclass(frozen=True)
class Rule:
    """``refuse`` ends the command with exit 2, ``warn`` goes on and says so."""

    id: str
    level: Literal["refuse", "warn"]
    where: Text
    when: Callable[[Facts], bool]
    why: Text
    fix: Text


def _divides(facts: Facts) -> bool:
    return facts.run.train.global_batch % facts.processes == 0


def _lengths(facts: Facts) -> list[str]:
    return [key for key in ("epochs", "steps", "samples") if getattr(facts.run.train, key) is not None]


def _length_fix(facts: Facts) -> str:
    given = _lengths(facts)
    if not given:
        return "try train.epochs=1"
    keep = next((key for key in given if key != "epochs"), given[0])
    return "add " + " ".join(f"train.{key}=null" for key in given if key != keep)


def _compiler(facts: Facts) -> bool:
    compiles = facts.run.compile.option != "none" and facts.run.compile.backend == "inductor"
    return (
        compiles
        and facts.device == "cpu"
        and not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "single-is-one-process", "refuse",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.run.strategy.option == "single" and f.processes > 1,
        "strategy=single is one process",
        lambda f: f"try strategy=ddp launch.processes={f.processes}",
    ),
    Rule(
        "ddp-of-one", "warn",
        "strategy=ddp",
        lambda f: f.run.strategy.option == "ddp" and f.processes == 1,
        "one process averages with nobody",
        "try launch.processes=2 or strategy=single",
    ),
    Rule(
        "batch-divides", "refuse",
        lambda f: f"train.global_batch={f.run.train.global_batch}",
        lambda f: not _divides(f),
        lambda f: f"does not divide over {f.processes} processes",
        lambda f: "try train.global_batch={} or train.global_batch={}".format(
            *nearest_batches(f.run.train.global_batch, f.processes)
        ),
    ),
    Rule(
        "one-length", "refuse",
        lambda f: " ".join(f"train.{k}={getattr(f.run.train, k)}" for k in _lengths(f)) or "train.epochs=null",
        lambda f: len(_lengths(f)) != 1,
        lambda f: "one run has one length" if _lengths(f) else "how long to train is not said",
        _length_fix,
    ),
    Rule(
        "cuda-present", "refuse",
        "hardware=cuda",
        lambda f: f.device == "cuda" and not f.machine.gpus,
        "no NVIDIA GPU is visible on this machine",
        "try hardware=cpu or hardware=auto",
    ),
    Rule(
        "mps-present", "refuse",
        "hardware=mps",
        lambda f: f.device == "mps" and not f.machine.mps,
        "no Apple GPU on this machine",
        "try hardware=cpu or hardware=auto",
    ),
    Rule(
        "enough-gpus", "refuse",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device == "cuda" and bool(f.machine.gpus) and f.processes > len(f.machine.gpus),
        lambda f: f"one process needs one GPU; there are {len(f.machine.gpus)}",
        lambda f: f"try launch.processes={len(f.machine.gpus)} or hardware=cpu",
    ),
    Rule(
        "one-process-on-mps", "refuse",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device == "mps" and f.processes > 1,
        "an Apple GPU serves one process",
        "try strategy=single launch.processes=1",
    ),
    Rule(
        "gpus-unused", "warn",
        lambda f: f"strategy={f.run.strategy.option}",
        lambda f: f.device == "cuda" and len(f.machine.gpus) > f.processes,
        lambda f: f"uses {f.processes} of {len(f.machine.gpus)} GPUs",
        "try strategy=ddp",
    ),
    Rule(
        "nccl-needs-cuda", "refuse",
        "launch.backend=nccl",
        lambda f: f.run.launch.backend == "nccl" and f.device != "cuda",
        lambda f: f"nccl moves GPU memory; hardware={f.device}",
        "try launch.backend=gloo",
    ),
    Rule(
        "processes-and-cores", "warn",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device == "cpu" and f.processes > f.machine.cores,
        lambda f: f"more processes than cores ({f.machine.cores}): they take turns",
        lambda f: f"try launch.processes={f.machine.cores}",
    ),
    Rule(
        "threads-and-cores", "warn",
        lambda f: f"hardware.threads={f.run.hardware.threads}",
        lambda f: f.run.hardware.threads * f.processes > max(f.machine.cores, f.processes),
        lambda f: f"{f.processes} x {f.run.hardware.threads} threads on {f.machine.cores} cores: they take turns",
        "try hardware.threads=auto",
    ),
    Rule(
        "slow-bf16", "warn",
        "precision=bf16",
        lambda f: f.device == "cpu" and f.kernels == "bf16" and not f.machine.fast_bf16,
        "this processor has no amx_bf16 or avx512_bf16: slower than fp32",
        "try precision=fp32",
    ),
    Rule(
        "slow-fp16", "warn",
        "precision=fp16",
        lambda f: f.device == "cpu" and f.kernels == "fp16",
        "processors convert fp16 to and fro: slower than fp32, here for tests",
        "try precision=fp32",
    ),
    Rule(
        "fp16-on-mps", "refuse",
        "precision=fp16",
        lambda f: f.device == "mps" and f.kernels == "fp16",
        "loss scaling is not tried on an Apple GPU",
        "try precision=fp32 or precision=bf16",
    ),
    Rule(
        "compiler-present", "refuse",
        "compile=full",
        _compiler,
        "inductor needs a C++ compiler, and there is none on PATH",
        "install g++, or try compile=none",
    ),
    Rule(
        "model-reads-input", "refuse",
        lambda f: f"model={f.run.model.option} data={f.run.data.option}",
        lambda f: bool(f.run.data.input_kind)
        and INPUT_OF_MODEL.get(f.run.model.option, f.run.data.input_kind) != f.run.data.input_kind,
        lambda f: f"{f.run.model.option} reads {INPUT_OF_MODEL[f.run.model.option]}, "
        f"{f.run.data.option} gives {f.run.data.input_kind}",
        lambda f: f"try model={'gpt' if f.run.data.input_kind == 'tokens' else 'mlp'}",
    ),
    Rule(
        "mlp-reads-no-tokens", "refuse",
        lambda f: f"model={f.run.model.option} data={f.run.data.option}",
        lambda f: f.run.model.option == "mlp" and f.run.data.input_kind == "tokens",
        lambda f: f"an mlp reads images and vectors, {f.run.data.option} gives tokens",
        "try model=gpt",
    ),
    Rule(
        "task-fits-target", "refuse",
        lambda f: f"task={f.run.task.option} data={f.run.data.option}",
        lambda f: bool(f.run.data.target_kind)
        and TARGET_OF_TASK.get(f.run.task.option, f.run.data.target_kind) != f.run.data.target_kind,
        lambda f: f"{f.run.task.option} needs a {TARGET_OF_TASK[f.run.task.option].replace('_', ' ')}, "
        f"{f.run.data.option} gives a {f.run.data.target_kind.replace('_', ' ')}",
        "try task=auto",
    ),
    Rule(
        "augment-is-for-images", "refuse",
        lambda f: f"augment=[{','.join(f.run.augment)}]",
        lambda f: bool(f.run.augment) and (f.run.data.input_kind or "image") != "image",
        lambda f: f"augments images, {f.run.data.option} gives {f.run.data.input_kind}",
        "try augment=none",
    ),
)  # fmt: skip


def judge(facts: Facts) -> list[str]:
    """Put a run before the rules.

    Returns the warnings, a line each. Raises SecurityError where code was not granted, else ConfigError with every refusal.
    """
    forbidden = list(_ungranted(facts))
    if forbidden:
        raise SecurityError(forbidden)
    broken = [_problem(rule, facts) for rule in RULES if rule.level == "refuse" and rule.when(facts)]
    broken += [*_absent_packages(facts), *_absent_files(facts), *_misspelt_factories(facts)]
    if broken:
        raise ConfigError(broken)
    warnings = (_problem(rule, facts) for rule in RULES if rule.level == "warn" and rule.when(facts))
    return [f"{p.where}: {p.why}; {p.fix}" for p in warnings]


def _problem(rule: Rule, facts: Facts) -> Problem:
    def text(value: Text) -> str:
        return value if isinstance(value, str) else value(facts)

    return Problem(text(rule.where), text(rule.why), text(rule.fix))


def chosen(run: Run) -> Iterator[tuple[str, str, Any]]:
    """(group, prefix of its keys, option) for every option of a run."""
    for group in GROUPS:
        held = getattr(run, group)
        if group in SEVERAL:
            for name, option in held.items():
                yield group, f"{group}.{SEVERAL[group]}.{name}", option
        else:
            yield group, group, held


def _factories(facts: Facts) -> Iterator[tuple[str, str]]:
    for _, prefix, option in chosen(facts.run):
        for key, value in option:
            if isinstance(value, str) and (key == "factory" or (key == "collate" and ":" in value)):
                yield f"{prefix}.{key}", value


def _ungranted(facts: Facts) -> Iterator[Problem]:
    for where, factory in _factories(facts):
        if not form_problem(factory, where) and (problem := grant_problem(factory, where, facts.plugins)):
            yield problem


def _misspelt_factories(facts: Facts) -> Iterator[Problem]:
    for where, factory in _factories(facts):
        if problem := form_problem(factory, where):
            yield problem


def _absent_packages(facts: Facts) -> Iterator[Problem]:
    for group, _, option in chosen(facts.run):
        for package in table(group)[option.option].requires:
            if not has_package(package):
                why = f"needs the package {package}, which is not installed"
                yield Problem(f"{group}={option.option}", why, f"pip install 'accel-cli[{package}]'")


def _absent_files(facts: Facts) -> Iterator[Problem]:
    """``path`` is a file and ``root`` a folder, in every group; a wrong one is found before any rank starts."""
    for _, prefix, option in chosen(facts.run):
        for key, kind in (("path", "file"), ("root", "folder")):
            value = getattr(option, key, None)
            if not value or (kind == "folder" and getattr(option, "downloads", False)):
                continue
            path = Path(value).expanduser()
            if path.is_file() if kind == "file" else path.is_dir():
                continue
            why = f"no such {kind}" if not path.exists() else f"not a {kind}"
            yield Problem(f"{prefix}.{key}={value}", why, _near_path(path, f"{prefix}.{key}"))


def _near_path(path: Path, key: str) -> str:
    try:
        names = [entry.name for entry in list(path.parent.iterdir())[:1000]]
    except OSError:
        return f"{path.parent} does not exist either" if not path.parent.exists() else "check the path"
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {key}={path.parent / near[0]} ?" if near else "check the path"
