"""The rule table: which combinations mean nothing or cost much, and the override to type instead."""

from __future__ import annotations

import math
import os
import shutil

from accel_cli.config.communication_rules import COMMUNICATION_RULES
from accel_cli.config.context_rules import CONTEXT_RULES
from accel_cli.config.facts import Facts, Rule
from accel_cli.config.hardware_rules import HARDWARE_RULES
from accel_cli.config.launch_rules import LAUNCH_RULES
from accel_cli.config.pipeline_rules import PIPELINE_RULES
from accel_cli.config.replica_rules import REPLICA_RULES
from accel_cli.config.strategy_rules import STRATEGY_RULES

INPUT_OF_MODEL = {
    "cnn": "image",
    "resnet": "image",
    "vit": "image",
    "torchvision": "image",
    "timm": "image",
    "gpt": "tokens",
    "transformers": "tokens",
}
"""What a model reads, where its name alone tells."""
TARGET_OF_TASK = {"classification": "class", "regression": "number", "language_model": "next_token"}
SEVERAL_OF = {"image": "images", "tokens": "tokens", "vector": "vectors"}
ONE_OF = {"class": "a class", "number": "a number", "next_token": "the next token"}
ALL_PARAMETERS = {"*", "**"}


def _length_fix(facts: Facts) -> str:
    given = facts.lengths
    return "add " + " ".join(f"train.{key}=null" for key in given[1:]) if given else "try train.epochs=1"


def _compiler_is_absent(facts: Facts) -> bool:
    if facts.run.compile.option == "none" or facts.run.compile.backend != "inductor" or facts.device != "cpu":
        return False
    return not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))


def _misread(facts: Facts) -> bool:
    kind, model = facts.run.data.input_kind, facts.run.model.option
    if model == "mlp":
        return kind == "tokens"
    return kind is not None and INPUT_OF_MODEL.get(model, kind) != kind


def _reads(facts: Facts) -> str:
    model, data = facts.run.model.option, facts.run.data
    reads = SEVERAL_OF.get(INPUT_OF_MODEL.get(model, ""), "images and vectors")
    return f"{model} reads {reads}; {data.option} gives {SEVERAL_OF[data.input_kind]}"


def _evaluations(facts: Facts) -> float:
    """Evaluations before the end of the run, as far as the length says; infinite where only the data can tell."""
    train, every = facts.run.train, facts.run.evaluate.every
    if every == "epoch":
        return math.inf if train.epochs is None else math.ceil(train.epochs)
    steps = facts.steps
    return math.inf if steps is None else steps // every


def _waits_too_long(facts: Facts, part: str, least: int) -> bool:
    return len(facts.lengths) == 1 and getattr(facts.run, part).patience + least > _evaluations(facts)


def _beyond(facts: Facts, section: str) -> bool:
    every, steps = getattr(facts.run, section).every, facts.steps
    return every != "epoch" and steps is not None and every > steps


def _brings_nothing(facts: Facts) -> bool:
    model, transfer = facts.run.model, facts.run.transfer
    if transfer.option != "finetune" or transfer.weights is not None or model.option in ("transformers", "custom"):
        return False
    return not (model.option == "torchvision" and model.weights) and not (model.option == "timm" and model.pretrained)


RULES: tuple[Rule, ...] = (
    *STRATEGY_RULES,
    *PIPELINE_RULES,
    *CONTEXT_RULES,
    *REPLICA_RULES,
    *COMMUNICATION_RULES,
    *LAUNCH_RULES,
    *HARDWARE_RULES,
    Rule(
        "one-length", "refuse", "a run states one of train.epochs, train.steps and train.samples",
        lambda f: " ".join(f"train.{k}={getattr(f.run.train, k):g}" for k in f.lengths) or "train.epochs=null",
        lambda f: len(f.lengths) != 1,
        lambda f: "one run has one length" if f.lengths else "how long to train is not said",
        _length_fix,
    ),
    Rule(
        "slow-bf16", "warn", "bf16 is slow on a processor that does not multiply it",
        "precision=bf16",
        lambda f: f.device == "cpu" and f.kernels == "bf16" and not f.machine.fast_bf16,
        "this processor has no amx_bf16 or avx512_bf16: slower than fp32",
        "try precision=fp32",
    ),
    Rule(
        "slow-fp16", "warn", "fp16 is slow on a processor without avx512_fp16",
        "precision=fp16",
        lambda f: f.device == "cpu" and f.kernels == "fp16" and "avx512_fp16" not in f.machine.cpu_flags,
        "this processor has no avx512_fp16 and converts to and fro: slower than fp32",
        "try precision=fp32",
    ),
    Rule(
        "fp16-on-mps", "refuse", "loss scaling is not supported on an Apple GPU",
        "precision=fp16",
        lambda f: f.device == "mps" and f.kernels == "fp16",
        "loss scaling is not supported on an Apple GPU",
        "try precision=fp32 or precision=bf16",
    ),
    Rule(
        "compiler-present", "refuse", "compile.backend=inductor on a CPU needs a C++ compiler",
        lambda f: f"compile={f.run.compile.option}",
        _compiler_is_absent,
        "inductor needs a C++ compiler, and there is none on PATH",
        "try compile=none, or install g++",
    ),
    Rule(
        "model-reads-input", "refuse", "the model reads the kind of input that the data gives",
        lambda f: f"model={f.run.model.option} data={f.run.data.option}",
        _misread,
        _reads,
        lambda f: f"try model={'gpt' if f.run.data.input_kind == 'tokens' else 'mlp'}",
    ),
    Rule(
        "task-fits-target", "refuse", "the task learns the kind of target that the data gives",
        lambda f: f"task={f.run.task.option} data={f.run.data.option}",
        lambda f: bool(f.run.data.target_kind)
        and TARGET_OF_TASK.get(f.run.task.option, f.run.data.target_kind) != f.run.data.target_kind,
        lambda f: f"{f.run.task.option} learns {ONE_OF[TARGET_OF_TASK[f.run.task.option]]}; "
        f"the target of {f.run.data.option} is {ONE_OF[f.run.data.target_kind]}",
        "try task=auto",
    ),
    Rule(
        "augment-is-for-images", "refuse", "augment changes images, nothing else",
        lambda f: f"augment=[{','.join(f.run.augment)}]",
        lambda f: bool(f.run.augment) and (f.run.data.input_kind or "image") != "image",
        lambda f: f"changes images; {f.run.data.option} gives {SEVERAL_OF[f.run.data.input_kind]}",
        "try augment=none",
    ),
    Rule(
        "something-to-train", "refuse", "transfer.freeze leaves parameters to train",
        lambda f: f"transfer.freeze=[{','.join(f.run.transfer.freeze)}]",
        lambda f: f.run.transfer.option == "finetune" and bool(ALL_PARAMETERS & set(f.run.transfer.freeze)),
        "freezes every parameter: nothing is left to train",
        "try transfer.freeze=[]",
    ),
    Rule(
        "finetune-from-nothing", "warn", "transfer=finetune starts from trained weights",
        "transfer=finetune",
        _brings_nothing,
        lambda f: f"no weights are named, and model={f.run.model.option} brings none: this trains from scratch",
        lambda f: "try model.pretrained=true" if f.run.model.option == "timm" else "try transfer.weights=runs/<a run>",
    ),
    Rule(
        "early-in-time", "warn", "stopping=early needs more evaluations than its patience",
        lambda f: f"stopping.patience={f.run.stopping.patience}",
        lambda f: f.run.stopping.option == "early" and _waits_too_long(f, "stopping", 1),
        lambda f: f"the run has {_evaluations(f)} evaluations: it ends before it could be stopped",
        "try a smaller evaluate.every, or stopping=none",
    ),
    Rule(
        "plateau-in-time", "warn", "schedule=plateau needs more evaluations than its patience",
        lambda f: f"schedule.patience={f.run.schedule.patience}",
        lambda f: f.run.schedule.option == "plateau" and _waits_too_long(f, "schedule", 2),
        lambda f: f"the run has {_evaluations(f)} evaluations: it ends before the rate could drop",
        "try a smaller evaluate.every, or schedule=cosine",
    ),
    Rule(
        "evaluates-in-time", "warn", "evaluate.every lies within the run",
        lambda f: f"evaluate.every={f.run.evaluate.every}",
        lambda f: _beyond(f, "evaluate"),
        lambda f: f"the run has {f.steps} steps: it evaluates at its end only",
        lambda f: f"try evaluate.every={max(1, (f.steps or 0) // 4)}",
    ),
    Rule(
        "saves-in-time", "warn", "checkpoint.every lies within the run",
        lambda f: f"checkpoint.every={f.run.checkpoint.every}",
        lambda f: _beyond(f, "checkpoint"),
        lambda f: f"the run has {f.steps} steps: it saves at its end only",
        lambda f: f"try checkpoint.every={max(1, (f.steps or 0) // 4)}",
    ),
    Rule(
        "warm-in-time", "warn", "schedule.warmup lies within the run",
        lambda f: f"schedule.warmup={f.run.schedule.warmup}",
        lambda f: f.run.schedule.warmup >= (f.steps or math.inf),
        lambda f: f"the run has {f.steps} steps: the full learning rate is never reached",
        "try schedule.warmup=0.1",
    ),
    Rule(
        "workers-and-cores", "warn", "loader workers and processes share the cores",
        lambda f: f"loader.workers={f.run.loader.workers}",
        lambda f: f.run.loader.option == "workers"
        and f.run.loader.workers != "auto"
        and f.run.loader.workers > 1
        and f.run.loader.workers * f.processes > f.machine.cores,
        lambda f: f"{f.processes} x {f.run.loader.workers} workers on {f.machine.cores} cores: they take turns",
        "try loader.workers=auto or loader=auto",
    ),
)  # fmt: skip
