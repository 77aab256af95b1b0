"""The rule table: every rule can be met, and every pair of options runs or is refused with what to type."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doors import HIDDEN_WORDS, through

from accel_cli.config import tree
from accel_cli.config.decide import decide
from accel_cli.config.machine import GPU, Machine
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.rules import RULES, Facts, judge, refusals
from accel_cli.config.run import Run, check_tree
from accel_cli.errors import Problem

PRUNE = "compression.passes.prune_structured"
CPU = Machine(cores=2, memory_bytes=8 << 30)
TWO_GPUS = replace(CPU, cores=16, gpus=(GPU("a", 80 << 30, (9, 0)), GPU("b", 80 << 30, (9, 0))))
APPLE = replace(CPU, mps=True)
TREE = through("train.epochs=10", "model=mlp", "data=digits").composed.tree
PLACEHOLDERS = {
    "path": __file__, "root": str(Path(__file__).parent), "factory": "nets:Net",
    "teacher": "runs/x", "data.target": "x", "stopping.target": 0.5,
}  # fmt: skip

CASES: dict[str, tuple[Machine, dict[str, Any]]] = {
    "fpga-takes-fixed-point": (CPU, {"export": "fpga", "compression": "qat"}),
    "one-process": (CPU, {"launch.processes": 2}),
    "alone": (CPU, {"strategy": "ddp", "launch.processes": 1}),
    "one-auto": (CPU, {"strategy": "mesh", "strategy.tensor": "auto"}),
    "mesh-fits": (CPU, {"strategy": "mesh", "strategy.tensor": 2, "launch.processes": 3}),
    "static-graph-every-step": (CPU, {"strategy": "ddp", "strategy.static_graph": True, "train.micro_batch": 4}),
    "one-average": (CPU, {"train.ema": 0.9, "optimizer": "schedule_free"}),
    "schedule-free-of-replicas": (CPU, {"strategy": "diloco", "optimizer": "schedule_free"}),
    "state-in-one-piece": (CPU, {"strategy": "fsdp", "launch.processes": 2, "optimizer": "adafactor"}),
    "adamw8bit-is-compiled": (CPU, {"optimizer": "adamw8bit"}),
    "schedule-free-is-free": (CPU, {"optimizer": "schedule_free"}),
    "rprop-has-no-decay": (CPU, {"optimizer": "rprop", "optimizer.weight_decay": 0.1}),
    "rprop-steps-by-itself": (CPU, {"optimizer": "rprop"}),
    "muon-of-a-stage": (CPU, {"strategy": "pipeline", "optimizer": "muon"}),
    "context-in-one-stage": (
        CPU,
        {"strategy": "mesh", "strategy.pipeline": 2, "strategy.context": 2, "launch.processes": 4},
    ),
    "stages-are-filled": (CPU, {"strategy": "pipeline", "launch.processes": 2, "train.global_batch": 63}),
    "stages-of-a-schedule": (CPU, {"strategy": "pipeline", "launch.processes": 2, "strategy.stages_per_rank": 2}),
    "zero-bubble-alone": (
        CPU,
        {"strategy": "mesh", "strategy.pipeline": 2, "strategy.schedule": "zero_bubble", "launch.processes": 4},
    ),
    "stages-share-no-weight": (
        CPU,
        {"strategy": "pipeline", "launch.processes": 2, "model": "gpt", "model.weight_tying": True, "data": "text"},
    ),
    "dataparallel-or-ddp": (CPU, {"strategy": "dataparallel"}),
    "dataparallel-has-gpus": (TWO_GPUS, {"strategy": "dataparallel", "strategy.devices": 3}),
    "dataparallel-copies": (CPU, {"strategy": "dataparallel", "train.activation_checkpointing": "blocks"}),
    "context-needs-attention": (CPU, {"strategy": "context"}),
    "context-shares-heads": (CPU, {"strategy": "context", "model": "gpt", "model.heads": 3, "data": "stdlib_text"}),
    "context-cuts-length": (CPU, {"strategy": "context", "model": "gpt", "data": "stdlib_text", "data.length": 15}),
    "batch-divides": (CPU, {"strategy": "ddp", "launch.processes": 3}),
    "one-length": (CPU, {"train.steps": 3}),
    "cuda-present": (CPU, {"hardware": "cuda"}),
    "mps-present": (CPU, {"hardware": "mps"}),
    "xpu-present": (CPU, {"hardware": "xpu"}),
    "tpu-present": (CPU, {"hardware": "tpu"}),
    "cuda-in-torch": (replace(TWO_GPUS, built_without=frozenset({"cuda"})), {"hardware": "cuda"}),
    "xpu-in-torch": (replace(CPU, xpus=1, built_without=frozenset({"xpu"})), {"hardware": "xpu"}),
    "enough-gpus": (TWO_GPUS, {"strategy": "ddp", "launch.processes": 4}),
    "one-process-on-mps": (APPLE, {"strategy": "ddp", "launch.processes": 2}),
    "gpus-unused": (TWO_GPUS, {}),
    "nodes-in-order": (CPU, {"launch.nodes": "2:1"}),
    "nodes-meet-somewhere": (CPU, {"strategy": "ddp", "launch.nodes": 2}),
    "rendezvous-of-several": (CPU, {"launch.rendezvous": "10.0.0.1:29500"}),
    "rendezvous-form": (CPU, {"strategy": "ddp", "launch.nodes": 2, "launch.rendezvous": "10.0.0.1"}),
    "rendezvous-in-reach": (CPU, {"strategy": "ddp", "launch.nodes": 2, "launch.rendezvous": "localhost:29500"}),
    "interface-exists": (CPU, {"launch.interface": "wire0"}),
    "restarts-from-something": (
        CPU,
        {"train.epochs": None, "train.steps": 9, "checkpoint.every": 9, "launch.max_restarts": 1},
    ),
    "backend-moves-device": (CPU, {"launch.backend": "nccl"}),
    "threads-leave-cores": (CPU, {"hardware.threads": 1}),
    "thread-limit": (CPU, {"hardware.threads": 2}),
    "threads-bound-alike": (CPU, {"strategy": "ddp", "launch.processes": 2}),
    "cores-to-share": (
        replace(CPU, core_mask=1),
        {"hardware.affinity": "cores", "strategy": "ddp", "launch.processes": 2},
    ),
    "allocator-installed": (CPU, {"hardware.allocator": "jemalloc"}),
    "glibc-to-tune": (CPU, {"hardware.allocator": "tuned"}),
    "channels-last-whole": (CPU, {"hardware.memory_format": "channels_last", "strategy": "fsdp"}),
    "fp16-on-tpu": (replace(CPU, tpus=1), {"hardware": "tpu", "precision": "fp16"}),
    "processes-and-cores": (CPU, {"strategy": "ddp", "launch.processes": 4}),
    "threads-and-cores": (CPU, {"hardware.threads": 3}),
    "slow-bf16": (CPU, {"precision": "bf16"}),
    "slow-fp16": (CPU, {"precision": "fp16"}),
    "precision-in-hardware": (CPU, {"precision": "tf32"}),
    "slow-fp8": (CPU, {"precision": "fp8"}),
    "fp8-compiled": (TWO_GPUS, {"hardware": "cuda", "precision": "fp8"}),
    "fp8-gathers": (CPU, {"precision": "fp8", "precision.gather": "fp8"}),
    "selective-and-sharded": (
        CPU,
        {"strategy": "fsdp", "precision": "bf16_pure", "train.activation_checkpointing": "selective"},
    ),
    "average-in-bf16": (CPU, {"precision": "bf16_pure", "train.ema": 0.99}),
    "bf16-forgets": (CPU, {"precision": "bf16_pure"}),
    "fp16-on-mps": (APPLE, {"precision": "fp16"}),
    "compiler-present": (CPU, {"compile": "full"}),
    "autotune-by-inductor": (CPU, {"compile": "max_autotune", "compile.backend": "aot_eager"}),
    "cuda-graphs-on-cuda": (CPU, {"compile": "full", "compile.cuda_graphs": True}),
    "micro-batch-of-stages": (CPU, {"strategy": "pipeline", "launch.processes": 2, "train.micro_batch": "auto"}),
    "memory-can-be-seen": (APPLE, {"train.micro_batch": "auto"}),
    "memory-limit-on-linux": (
        replace(CPU, counts_memory=False),
        {"hardware": "cpu", "hardware.memory_gigabytes": 2.0},
    ),
    "model-reads-input": (CPU, {"model": "gpt"}),
    "task-fits-target": (CPU, {"task": "regression"}),
    "task-keys-fit-target": (
        CPU,
        {"data": "stdlib_text", "model": "gpt", "task": "auto", "task.label_smoothing": 0.1},
    ),
    "augment-fits-input": (CPU, {"augment": "basic", "data": "stdlib_text", "model": "gpt"}),
    "colours-first": (CPU, {"augment": ["cutout", "color_jitter"]}),
    "mixed-once": (CPU, {"augment": ["mixup", "cutmix"]}),
    "sizes-that-stay": (CPU, {"strategy": "pipeline", "augment": "progressive_resize", "model": "cnn"}),
    "sizes-that-a-model-reads": (CPU, {"augment": "progressive_resize", "model": "vit"}),
    "largest-size-is-last": (
        CPU,
        {"augment": "progressive_resize", "model": "cnn", "train.micro_batch": "auto", "hardware": "cpu"},
    ),
    "each-size-compiles": (CPU, {"augment": "progressive_resize", "model": "cnn", "compile": "full"}),
    "views-of-the-whole-model": (
        CPU,
        {"strategy": "pipeline", "launch.processes": 2, "task.test_time_augmentation": "flip"},
    ),
    "views-of-images": (
        CPU,
        {"data": "csv", "task": "classification", "task.test_time_augmentation": "flip"},
    ),
    "something-to-train": (CPU, {"transfer": "finetune", "transfer.freeze": ["*"]}),
    "finetune-from-nothing": (CPU, {"transfer": "finetune"}),
    "thaws-in-order": (CPU, {"transfer": "gradual_unfreezing", "transfer.start": 0.7}),
    "trained-anew-in-a-layout": (CPU, {"transfer": "lora", "strategy": "tensor", "launch.processes": 2}),
    "additions-in-floats": (CPU, {"transfer": "lora", "precision": "fp8"}),
    "additions-before-compression": (CPU, {"transfer": "lora", "compression": "low_rank"}),
    "one-way-to-a-rank": (
        CPU,
        {"compression": "low_rank", "compression.passes.low_rank.multiply_adds": 0.5},
    ),
    "low-rank-of-trained-weights": (CPU, {"compression": "low_rank"}),
    "one-place-freezes": (
        CPU,
        {"transfer": "lora", "optimizer.groups": [{"match": "*.bias", "frozen": True}]},
    ),
    "features-of-a-whole-model": (CPU, {"transfer": "frozen_features", "strategy": "fsdp"}),
    "features-without-teacher": (CPU, {"transfer": "frozen_features", "compression": "distill"}),
    "kept-for-a-sample": (CPU, {"transfer": "frozen_features", "augment": "mixup"}),
    "features-are-drawn-again": (CPU, {"transfer": "frozen_features", "augment": "basic"}),
    "features-have-views": (CPU, {"transfer": "frozen_features", "transfer.views": 4}),
    "quantized-once": (CPU, {"compression": ["qat", "ptq"]}),
    "quantized-or-eight-bit": (CPU, {"compression": "ptq", "precision": "fp8"}),
    "packed-weights-alone": (CPU, {"compression": "ptq", "compression.passes.ptq.bits": 4}),
    "qat-needs-weights": (CPU, {"compression": "qat", "compression.passes.qat.start": 0.0}),
    "teacher-knows-the-task": (CPU, {"compression": "distill", "task": "custom"}),
    "teacher-knows-something": (
        CPU,
        {"compression": "distill", "compression.passes.distill.teacher": "torchvision:resnet18"},
    ),
    "run-has-weights": (CPU, {"compression": "distill", "compression.passes.distill.weights": "x.safetensors"}),
    "features-have-layers": (CPU, {"compression": "distill", "compression.passes.distill.features": "hint"}),
    "features-are-not-kept": (
        CPU,
        {
            "compression": "distill",
            "compression.passes.distill.features": "hint",
            "compression.passes.distill.layers": ["body"],
        },
    ),
    "features-in-a-forward": (
        CPU,
        {
            "compression": "distill",
            "compression.passes.distill.features": "hint",
            "compression.passes.distill.layers": ["body"],
            "compression.passes.distill.cache": False,
            "compile": "full",
        },
    ),
    "hints-of-a-width": (
        CPU,
        {
            "compression": ["prune_structured", "distill"],
            "compression.passes.distill.features": "hint",
            "compression.passes.distill.layers": ["body"],
            "compression.passes.distill.cache": False,
        },
    ),
    "teacher-sees-views": (CPU, {"compression": "distill", "augment": "basic"}),
    "teacher-has-views": (CPU, {"compression": "distill", "compression.passes.distill.views": 4}),
    "passes-in-order": (
        CPU,
        {"compression": ["prune_structured", "prune_magnitude"], "compression.passes.prune_magnitude.start": 0.0},
    ),
    "one-mask": (CPU, {"compression": ["prune_magnitude", "prune_2_4"]}),
    "mask-of-whole-rows": (CPU, {"compression": "prune_2_4", "strategy": "localsgd"}),
    "mask-of-live-weights": (CPU, {"compression": "prune_magnitude", "optimizer": "schedule_free"}),
    "mask-of-trained-weights": (CPU, {"compression": "prune_magnitude", "transfer": "frozen_features"}),
    "mask-grows": (CPU, {"compression": "prune_magnitude", "compression.passes.prune_magnitude.end": 0.05}),
    "rewinds-to-before": (CPU, {"compression": "prune_2_4", "compression.passes.prune_2_4.rewind": 0.5}),
    "floor-before-training": (
        CPU,
        {"compression": "prune_2_4", "compression.passes.prune_2_4.start": 0.0, "compression.floor": 0.1},
    ),
    "mask-recovers": (CPU, {"compression": "prune_magnitude", "compression.passes.prune_magnitude.end": 1.0}),
    "changes-under-features": (CPU, {"compression": "ptq", "transfer": "frozen_features"}),
    "changes-in-a-layout": (
        CPU,
        {"compression": "prune_structured", "strategy": "localsgd", "launch.processes": 2},
    ),
    "prune-structured-end": (CPU, {"compression": "prune_structured", f"{PRUNE}.end": 0.1}),
    "another-width-in-fp8": (CPU, {"compression": "prune_structured", f"{PRUNE}.multiple": 8, "precision": "fp8"}),
    "floor-of-nothing": (CPU, {"compression.floor": 0.1}),
    "early-in-time": (CPU, {"stopping": "early", "train.epochs": 2.0}),
    "plateau-in-time": (CPU, {"schedule": "plateau", "train.epochs": 2.0}),
    "evaluates-in-time": (CPU, {"train.epochs": None, "train.steps": 10, "evaluate.every": 20}),
    "saves-in-time": (CPU, {"train.epochs": None, "train.steps": 10, "checkpoint.every": 20}),
    "warm-in-time": (CPU, {"train.epochs": None, "train.steps": 10, "schedule.warmup": 20}),
    "drops-in-time": (CPU, {"schedule": "step", "schedule.every": 50, "train.epochs": None, "train.steps": 50}),
    "stable-in-between": (CPU, {"schedule": "warmup_stable_decay", "schedule.warmup": 0.5, "schedule.decay": 0.5}),
    "momentum-to-follow": (CPU, {"optimizer": "adagrad", "schedule.momentum": [0.85, 0.95]}),
    "stream-reads-chunks": (CPU, {"loader": "stream"}),
    "device-is-the-host": (CPU, {"loader": "device"}),
    "loader-threads-and-cores": (CPU, {"loader": "threads", "loader.threads": 4}),
    "fingerprint-keeps": (CPU, {"data": "custom", "data.fingerprint": "x", "loader": "threads"}),
    "workers-and-cores": (CPU, {"loader": "workers", "loader.workers": 4}),
    "nothing-to-send": (CPU, {"communication": "fp16"}),
    "powersgd-under-ddp": (CPU, {"strategy": "fsdp", "communication": "powersgd"}),
    "replicas-send-weights": (CPU, {"strategy": "localsgd", "communication": "fp16"}),
    "overlap-in-a-round": (CPU, {"strategy": "diloco", "strategy.overlap": 50}),
    "agrees-in-time": (CPU, {"strategy": "diloco", "train.epochs": None, "train.steps": 10}),
    "evaluates-when-agreed": (CPU, {"strategy": "localsgd", "evaluate.every": 12}),
    "powersgd-in-time": (
        CPU,
        {"strategy": "ddp", "communication": "powersgd", "train.epochs": None, "train.steps": 10},
    ),
}

SET_FOR = {"thread-limit": {"OMP_THREAD_LIMIT": "1"}, "threads-bound-alike": {"OMP_PROC_BIND": "close"}}
"""Variables that a rule is about."""


def composed(settings: dict[str, Any]) -> Run:
    """What composing would make of options and values, without Hydra, with placeholders for what has no default."""
    node = {key: dict(part) if isinstance(part, dict) else part for key, part in TREE.items()}
    for key, value in settings.items():
        group, dot, leaf = key.partition(".")
        if dot:
            *inside, last = leaf.split(".")
            held = node[group]
            for name in inside:
                held = held[name]
            held[last] = value
            continue
        if group not in SEVERAL:
            node[group] = {**_keys(group, value), "option": value}
        else:
            several = value if isinstance(value, list) else [value]
            held = {name: _keys(group, name) for name in several if name != "none"}
            node[group] = {**node[group], SEVERAL[group]: held}
    checked = check_tree(node)
    assert checked.run is not None
    assert not checked.problems, checked.problems
    return checked.run


def _keys(group: str, option: str) -> dict[str, Any]:
    return {
        k: PLACEHOLDERS.get(f"{group}.{k}", PLACEHOLDERS.get(k, v)) if v in (None, "???", "") else v
        for k, v in tree.read_yaml(tree.options(group)[option]).items()
    }


def facts(settings: dict[str, Any], machine: Machine) -> Facts:
    return Facts(decide(composed(settings), machine)[0], machine, ["nets"])


def test_rules_are_told_apart_and_told() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.level in ("refuse", "warn")
        assert rule.text
        assert "\n" not in rule.text
        assert rule.id == rule.id.lower()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_can_be_met_and_need_not_be(rule: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine, settings = CASES[rule.id]
    if rule.id in ("compiler-present", "adamw8bit-is-compiled"):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
    for name, value in SET_FOR.get(rule.id, {}).items():
        monkeypatch.setenv(name, value)
    met = facts(settings, machine)
    assert rule.when(met)
    problem = rule.problem(met)
    assert all((problem.where, problem.why, problem.fix))
    told = [f"{p.where}: {p.why}; {p.fix}" for p in refusals(met)] if rule.level == "refuse" else judge(met)
    assert f"{problem.where}: {problem.why}; {problem.fix}" in told
    for name in SET_FOR.get(rule.id, {}):
        monkeypatch.delenv(name)
    assert not rule.when(facts({}, TWO_GPUS if rule.id == "one-length" else CPU))


def test_the_micro_batches_of_a_pipeline_change_a_static_graph_too() -> None:
    cut = {"strategy": "mesh", "strategy.pipeline": 2, "launch.processes": 4}
    assert not refusals(facts(cut, CPU))
    (problem,) = refusals(facts({**cut, "strategy.static_graph": True}, CPU))
    assert problem.where == "strategy.static_graph=true"
    assert "pipeline" in problem.why


def pairs() -> Iterator[tuple[str, str, str, str]]:
    for first, second in itertools.combinations(GROUPS, 2):
        for option in table(first):
            yield from ((first, option, second, other) for other in table(second))


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(CPU, id="cpu"),
        pytest.param(TWO_GPUS, id="two gpus", marks=pytest.mark.slow),
        pytest.param(APPLE, id="apple", marks=pytest.mark.slow),
    ],
)
def test_every_pair_of_options_runs_or_is_refused_with_a_fix(machine: Machine) -> None:
    count = 0
    for first, option, second, other in pairs():
        found = facts({first: option, second: other}, machine)
        for problem in refusals(found):
            assert isinstance(problem, Problem)
            assert problem.where, (option, other)
            assert problem.why, problem
            assert problem.fix, problem
            assert not any(word in str(problem) for word in HIDDEN_WORDS)
        count += 1
    assert count > 1_000


def test_the_model_that_a_refusal_names_fits() -> None:
    for model, data in itertools.product(table("model"), table("data")):
        for problem in refusals(facts({"model": model, "data": data}, CPU)):
            group, _, option = problem.fix.removeprefix("try ").partition("=")
            if group == "model":
                mended = refusals(facts({"model": option, "data": data}, CPU))
                assert problem.why not in {p.why for p in mended}
                assert not any("reads" in p.why for p in mended)


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({"strategy": "ddp"}, "try launch.processes=3"),
        ({"strategy": "mesh", "strategy.replicate": "auto", "strategy.tensor": 2}, "try launch.processes=2"),
        ({"strategy": "mesh", "strategy.replicate": 2, "strategy.tensor": 2}, "try strategy=single launch.processes=1"),
    ],
)
def test_fewer_processes_are_those_that_the_mesh_comes_to(settings: dict[str, Any], fix: str) -> None:
    rule = next(rule for rule in RULES if rule.id == "processes-and-cores")
    found = facts({**settings, "launch.processes": 4}, replace(CPU, cores=3))
    assert rule.when(found)
    assert rule.problem(found).fix == fix
