"""Rules about where a run begins, and about what is computed once and learnt from: features, outputs of a teacher."""

from __future__ import annotations

from typing import Any

from accel_cli.config.augment_rules import GROWING, MIXING
from accel_cli.config.compression_rules import SET_UP_AGAIN
from accel_cli.config.facts import Facts, Rule

HOLDS_WHOLE = ("single", "ddp", "localsgd", "diloco")
"""Strategies under which every rank has a whole model that its own forward runs."""
TEACHER = "compression.passes.distill"
HEAD_ALONE = ("frozen_features", "linear_probe")
FREEZES = ("finetune", "gradual_unfreezing")
"""Options with a key for what stays as it is."""
CHANGES = ("gradual_unfreezing", "lora")
"""Options that decide at borders what is trained."""


def brings_nothing(facts: Facts) -> bool:
    """Whether the run begins with weights that nobody has trained, as far as its options tell."""
    model, transfer = facts.run.model, facts.run.transfer
    if model.option in ("transformers", "custom") or (transfer.option != "none" and transfer.weights is not None):
        return False
    return not (model.option == "torchvision" and model.weights) and not (model.option == "timm" and model.pretrained)


def _untaught(facts: Facts) -> list[str]:
    """Passes that change the model, which a teacher does not."""
    return [name for name in facts.run.compression if name != "distill"]


def _features(facts: Facts) -> bool:
    return bool(facts.run.transfer.option == "frozen_features")


def _distill(facts: Facts) -> Any:
    return facts.run.compression.get("distill")


def _cached(facts: Facts) -> bool:
    return _distill(facts) is not None and bool(_distill(facts).cache)


def _taps(facts: Facts) -> bool:
    """Whether inner features are learnt, which hooks take from a forward pass."""
    return _distill(facts) is not None and _distill(facts).features is not None


def _in_the_way(facts: Facts) -> str | None:
    """What keeps inner features from whoever asks for them, and what to type instead."""
    run = facts.run
    if run.strategy.option not in ("single", "ddp", "fsdp", "hsdp"):
        return f"strategy={'ddp' if facts.world_size > 1 else 'single'}"
    if run.compile.option != "none":
        return "compile=none"
    return None if run.train.activation_checkpointing == "none" else "train.activation_checkpointing=none"


def _is_run(facts: Facts) -> bool:
    distill = _distill(facts)
    return distill is not None and distill.architecture is None and not distill.is_factory


def _not_kept(facts: Facts) -> list[str]:
    """Augmentations of which one output a sample says nothing: by the step, or by another sample's target."""
    return [name for name in facts.run.augment if name in (*GROWING, *(MIXING if _features(facts) else ()))]


def _data_draws(facts: Facts) -> bool:
    """A data set of the user's own may be another at every reading."""
    return bool(facts.run.augment) or bool(facts.run.data.option == "custom")


def _frozen_groups(facts: Facts) -> list[str]:
    return [group.match for group in facts.run.optimizer.groups if group.frozen]


TRANSFER_RULES: tuple[Rule, ...] = (
    Rule(
        "thaws-in-order", "refuse", "transfer=gradual_unfreezing ends after it has started",
        lambda f: f"transfer.start={f.run.transfer.start:g} transfer.end={f.run.transfer.end:g}",
        lambda f: f.run.transfer.option == "gradual_unfreezing" and f.run.transfer.times > 1
        and f.run.transfer.end <= f.run.transfer.start,
        "no steps lie between the first layers that thaw and the last",
        lambda f: "try transfer.start=0.2 transfer.end=0.6, or transfer.times=1",
    ),
    Rule(
        "one-place-freezes", "refuse", "what thaws or is added to is frozen in one place",
        lambda f: f"transfer={f.run.transfer.option} optimizer.groups match={_frozen_groups(f)[0]}",
        lambda f: f.run.transfer.option in CHANGES and bool(_frozen_groups(f)),
        "it decides at its borders what is trained, and would thaw the group",
        lambda f: f"try transfer.freeze=[{','.join(_frozen_groups(f))}] in the place of a frozen group"
        if f.run.transfer.option == "gradual_unfreezing" else "leave the group out: what gets no addition is frozen",
    ),
    Rule(
        "trained-anew-in-a-layout", "refuse", "other parameters to train need training to be set up again",
        lambda f: f"transfer={f.run.transfer.option} strategy={f.run.strategy.option}",
        lambda f: f.run.transfer.option in CHANGES and f.run.strategy.option not in SET_UP_AGAIN,
        "what its ranks hold, and keep beside it, is of the parameters that were trained before",
        lambda f: "try strategy=fsdp" if f.world_size > 1 else "try strategy=single",
    ),
    Rule(
        "additions-in-floats", "refuse", "transfer=lora computes its layers itself",
        lambda f: f"transfer=lora precision={f.run.precision.option}",
        lambda f: f.run.transfer.option == "lora" and f.run.precision.option in ("fp8", "mxfp8"),
        "layers with an addition do not multiply in float8",
        "try precision=bf16",
    ),
    Rule(
        "additions-before-compression", "refuse", "what transfer=lora adds is merged before a model is made smaller",
        lambda f: f"transfer=lora compression=[{','.join(f.run.compression)}]",
        lambda f: f.run.transfer.option == "lora" and bool(_untaught(f)),
        lambda f: f"{' and '.join(_untaught(f))} would change layers whose weights are not all trained",
        "try compression=none, and compress the finished run: transfer=finetune transfer.weights=runs/<it>",
    ),
    Rule(
        "features-of-a-whole-model", "refuse", "transfer=frozen_features trains a head, which every rank holds",
        lambda f: f"transfer=frozen_features strategy={f.run.strategy.option}",
        lambda f: _features(f) and f.run.strategy.option not in HOLDS_WHOLE,
        "only a head is trained: there is nothing to lay out over devices",
        lambda f: "try strategy=ddp" if f.world_size > 1 else "try strategy=single",
    ),
    Rule(
        "features-without-teacher", "refuse", "a head on features has no teacher",
        "transfer=frozen_features compression=distill",
        lambda f: _features(f) and _distill(f) is not None,
        "a teacher reads the samples, not the features that a head is trained on",
        "try transfer=finetune or compression=none",
    ),
    Rule(
        "kept-for-a-sample", "refuse", "what is computed once belongs to one sample, at any step",
        lambda f: f"{'transfer=frozen_features' if _features(f) else 'compression=distill'} "
        f"augment=[{','.join(f.run.augment)}]",
        lambda f: (_features(f) or _cached(f)) and bool(_not_kept(f)),
        lambda f: f"{' and '.join(_not_kept(f))}: what is kept of a sample would be another at the next step",
        lambda f: "try transfer=finetune" if _features(f) else "try compression.passes.distill.cache=false",
    ),
    Rule(
        "features-are-drawn-again", "warn", "features of augmented samples differ by view",
        "transfer.views=1",
        lambda f: _features(f) and f.run.transfer.views == 1 and bool(f.run.augment),
        "every epoch sees the same augmentation of a sample",
        "try transfer.views=8, or augment=none",
    ),
    Rule(
        "features-have-views", "warn", "views of features differ by what is drawn",
        lambda f: f"transfer.views={f.run.transfer.views}",
        lambda f: _features(f) and f.run.transfer.views > 1 and not _data_draws(f),
        "without augment nothing is drawn: one view is kept",
        "try transfer.views=1",
    ),
    Rule(
        "teacher-knows-the-task", "refuse", "a teacher needs a task whose output is known",
        "compression=distill task=custom",
        lambda f: _distill(f) is not None and f.run.task.option == "custom",
        "of a loss of your own nobody knows how to soften the outputs",
        "try task=auto or compression=none",
    ),
    Rule(
        "teacher-knows-something", "refuse", "a teacher of torchvision has trained weights",
        lambda f: f"{TEACHER}.teacher={_distill(f).teacher}",
        lambda f: _distill(f) is not None and _distill(f).architecture is not None and _distill(f).weights is None,
        "without weights it would teach what its random first values say",
        f"try {TEACHER}.weights=<a .safetensors file>, or {TEACHER}.weights=DEFAULT {TEACHER}.share=0 with features",
    ),
    Rule(
        "run-has-weights", "refuse", "a run that teaches has weights and a model of its own",
        lambda f: f"{TEACHER}.weights={_distill(f).weights}" if _distill(f).weights else f"{TEACHER}.args",
        lambda f: _is_run(f) and bool(_distill(f).weights is not None or _distill(f).args),
        "the teacher is a run: its model and weights are those of a checkpoint",
        f"try {TEACHER}.weights=null {TEACHER}.args={{}}, and {TEACHER}.checkpoint=<which>",
    ),
    Rule(
        "features-have-layers", "refuse", "inner features are those of named modules",
        lambda f: f"{TEACHER}.layers=[{','.join(_distill(f).layers)}]",
        lambda f: _distill(f) is not None and _taps(f) != bool(_distill(f).layers),
        lambda f: "which modules are to be matched is not said" if _taps(f) else "what is to be learnt of them is not",
        lambda f: f"add {TEACHER}.layers=[<module of the student>:<module of the teacher>]" if _taps(f)
        else f"try {TEACHER}.features=hint, or {TEACHER}.layers=[]",
    ),
    Rule(
        "features-are-not-kept", "refuse", "inner features are computed in every step",
        lambda f: f"{TEACHER}.features={_distill(f).features}",
        lambda f: _taps(f) and _cached(f),
        "outputs are kept for each sample; inner features would take many times the disk",
        f"try {TEACHER}.cache=false",
    ),
    Rule(
        "features-in-a-forward", "refuse", "inner features are taken from a plain forward pass",
        lambda f: f"{TEACHER}.features={_distill(f).features}",
        lambda f: _taps(f) and _in_the_way(f) is not None,
        "a model that is cut, compiled or recomputed does not hand them out",
        lambda f: f"try {_in_the_way(f)}",
    ),
    Rule(
        "hints-of-a-width", "refuse", "projections of hints fit the widths that the student begins with",
        lambda f: f"compression=[{','.join(f.run.compression)}]",
        lambda f: _taps(f) and _distill(f).features == "hint" and "prune_structured" in f.run.compression,
        "channels that are taken out while it trains would be missing in a projection",
        f"try {TEACHER}.features=attention",
    ),
    Rule(
        "teacher-sees-views", "warn", "a teacher's outputs of augmented samples differ by view",
        "compression.passes.distill.views=1",
        lambda f: _cached(f) and _distill(f).views == 1 and bool(f.run.augment),
        "every epoch sees the same augmentation of a sample",
        "try compression.passes.distill.views=8, or compression.passes.distill.cache=false",
    ),
    Rule(
        "teacher-has-views", "warn", "views of a teacher's outputs differ by what is drawn",
        lambda f: f"compression.passes.distill.views={_distill(f).views}",
        lambda f: _distill(f) is not None and _distill(f).views > 1 and not (_cached(f) and _data_draws(f)),
        lambda f: "without augment nothing is drawn: one view is kept" if _cached(f)
        else "without a cache every epoch draws anew",
        "try compression.passes.distill.views=1",
    ),
)  # fmt: skip
