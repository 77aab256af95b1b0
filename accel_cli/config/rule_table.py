"""The rule table: which combinations mean nothing or cost much, and the override to type instead."""

from __future__ import annotations

from accel_cli.config.augment_rules import AUGMENT_RULES, SEVERAL_OF
from accel_cli.config.communication_rules import COMMUNICATION_RULES
from accel_cli.config.compile_rules import COMPILE_RULES
from accel_cli.config.compression_rules import COMPRESSION_RULES
from accel_cli.config.context_rules import CONTEXT_RULES
from accel_cli.config.decide import TASK_KEYS, foreign_task_keys
from accel_cli.config.export_rules import EXPORT_RULES
from accel_cli.config.facts import Facts, Rule
from accel_cli.config.hardware_rules import HARDWARE_RULES
from accel_cli.config.launch_rules import LAUNCH_RULES
from accel_cli.config.loader_rules import LOADER_RULES
from accel_cli.config.low_rank_rules import LOW_RANK_RULES
from accel_cli.config.mask_rules import MASK_RULES
from accel_cli.config.memory_rules import MEMORY_RULES
from accel_cli.config.optimizer_rules import OPTIMIZER_RULES
from accel_cli.config.pipeline_rules import PIPELINE_RULES
from accel_cli.config.precision_rules import PRECISION_RULES
from accel_cli.config.quantization_rules import QUANTIZATION_RULES
from accel_cli.config.replica_rules import REPLICA_RULES
from accel_cli.config.schedule_rules import SCHEDULE_RULES, evaluations, waits_too_long
from accel_cli.config.strategy_rules import STRATEGY_RULES
from accel_cli.config.stream_rules import STREAM_RULES
from accel_cli.config.transfer_rules import FREEZES, HEAD_ALONE, TRANSFER_RULES, brings_nothing

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
ONE_OF = {"class": "a class", "number": "a number", "next_token": "the next token"}
ALL_PARAMETERS = {"*", "**"}


def _length_fix(facts: Facts) -> str:
    given = facts.lengths
    return "add " + " ".join(f"train.{key}=null" for key in given[1:]) if given else "try train.epochs=1"


def _misread(facts: Facts) -> bool:
    kind, model = facts.run.data.input_kind, facts.run.model.option
    if model == "mlp":
        return kind == "tokens"
    return kind is not None and INPUT_OF_MODEL.get(model, kind) != kind


def _reads(facts: Facts) -> str:
    model, data = facts.run.model.option, facts.run.data
    reads = SEVERAL_OF.get(INPUT_OF_MODEL.get(model, ""), "images and vectors")
    return f"{model} reads {reads}; {data.option} gives {SEVERAL_OF[data.input_kind]}"


def _beyond(facts: Facts, section: str) -> bool:
    every, steps = getattr(facts.run, section).every, facts.steps
    return every != "epoch" and steps is not None and every > steps


RULES: tuple[Rule, ...] = (
    *STRATEGY_RULES,
    *PIPELINE_RULES,
    *CONTEXT_RULES,
    *REPLICA_RULES,
    *COMMUNICATION_RULES,
    *LAUNCH_RULES,
    *HARDWARE_RULES,
    *PRECISION_RULES,
    *COMPILE_RULES,
    *MEMORY_RULES,
    *LOADER_RULES,
    *SCHEDULE_RULES,
    *OPTIMIZER_RULES,
    *STREAM_RULES,
    *AUGMENT_RULES,
    *TRANSFER_RULES,
    *MASK_RULES,
    *EXPORT_RULES,
    *LOW_RANK_RULES,
    *COMPRESSION_RULES,
    *QUANTIZATION_RULES,
    Rule(
        "one-length", "refuse", "a run states one of train.epochs, train.steps and train.samples",
        lambda f: " ".join(f"train.{k}={getattr(f.run.train, k):g}" for k in f.lengths) or "train.epochs=null",
        lambda f: len(f.lengths) != 1,
        lambda f: "one run has one length" if f.lengths else "how long to train is not said",
        _length_fix,
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
        "task-keys-fit-target", "refuse", "the keys of task=auto have a meaning for the data's target",
        lambda f: " ".join(f"task.{key}={getattr(f.run.task, key)}" for key in foreign_task_keys(f.run)),
        lambda f: bool(foreign_task_keys(f.run)),
        lambda f: f"the target of {f.run.data.option} is {ONE_OF[f.run.data.target_kind]}, for which it means nothing",
        lambda f: "try " + " ".join(
            f"task.{key}={str(TASK_KEYS[key][1]).lower()}" for key in foreign_task_keys(f.run)
        ),
    ),
    Rule(
        "something-to-train", "refuse", "transfer.freeze leaves parameters to train",
        lambda f: f"transfer.freeze=[{','.join(f.run.transfer.freeze)}]",
        lambda f: f.run.transfer.option in FREEZES and bool(ALL_PARAMETERS & set(f.run.transfer.freeze)),
        "freezes every parameter: nothing is left to train",
        "try transfer.freeze=[]",
    ),
    Rule(
        "finetune-from-nothing", "warn", "transfer starts from trained weights",
        lambda f: f"transfer={f.run.transfer.option}",
        lambda f: f.run.transfer.option != "none" and brings_nothing(f),
        lambda f: f"no weights are named, and model={f.run.model.option} brings none: "
        + ("the features are random" if f.run.transfer.option in HEAD_ALONE else "this trains from scratch"),
        lambda f: "try model.pretrained=true" if f.run.model.option == "timm" else "try transfer.weights=runs/<a run>",
    ),
    Rule(
        "early-in-time", "warn", "stopping=early needs more evaluations than its patience",
        lambda f: f"stopping.patience={f.run.stopping.patience}",
        lambda f: f.run.stopping.option == "early" and waits_too_long(f, "stopping", 1),
        lambda f: f"the run has {evaluations(f)} evaluations: it ends before it could be stopped",
        "try a smaller evaluate.every, or stopping=none",
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
