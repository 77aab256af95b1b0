"""Rules about what changes training batches, and about views at evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from accel_cli.config.facts import Facts, Rule

TAKES = {"mixup": ("image", "vector"), "sequence_length_warmup": ("tokens",)}
"""Kinds of inputs; of those that are not here, images."""
SEVERAL_OF = {"image": "images", "tokens": "tokens", "vector": "vectors"}
ON_COLOURS = ("color_jitter", "randaugment")
ON_STORED = (*ON_COLOURS, "flip", "alternating_flip", "crop")
GROWING = ("progressive_resize", "sequence_length_warmup")
ONE_SIZE = ("mlp", "vit")
MIXING = ("mixup", "cutmix")


def _foreign(facts: Facts) -> list[str]:
    kind = facts.run.data.input_kind
    return [name for name in facts.run.augment if kind is not None and kind not in TAKES.get(name, ("image",))]


def _changes(facts: Facts) -> str:
    name = _foreign(facts)[0]
    changes = " and ".join(SEVERAL_OF[kind] for kind in TAKES.get(name, ("image",)))
    return f"{name} changes {changes}; {facts.run.data.option} gives {SEVERAL_OF[facts.run.data.input_kind]}"


def _fitting(facts: Facts) -> str:
    return _without(facts, _foreign(facts))


def _without(facts: Facts, names: object) -> str:
    kept = [name for name in facts.run.augment if name not in names]  # type: ignore[operator]
    return f"try augment=[{','.join(kept)}]" if kept else "try augment=none"


def _is_on_stored(facts: Facts, name: str) -> bool:
    option = facts.run.augment[name]
    return name in ON_STORED or (name == "basic" and not (option.rotate or option.scale))  # type: ignore[attr-defined]


def _late(facts: Facts) -> list[str]:
    """Colours that are to be changed after what needs normalised images."""

    def found() -> Iterator[str]:
        normalised = False
        for name in facts.run.augment:
            normalised |= not (_is_on_stored(facts, name) or name in GROWING)
            if normalised and name in ON_COLOURS:
                yield name

    return list(found())


def _growing(facts: Facts) -> list[str]:
    return [name for name in facts.run.augment if name in GROWING]


def _grows(facts: Facts) -> str:
    return f"augment=[{','.join(_growing(facts))}]"


def _option(facts: Facts) -> str:
    return str(facts.run.model.option)


def _reads_one_size(facts: Facts) -> bool:
    name = str(getattr(facts.run.model, "name", ""))
    return _option(facts) in ONE_SIZE or (_option(facts) in ("torchvision", "timm") and name.startswith("vit"))


def _views(facts: Facts) -> str:
    return str(getattr(facts.run.task, "test_time_augmentation", "none"))


AUGMENT_RULES: tuple[Rule, ...] = (
    Rule(
        "augment-fits-input", "refuse", "augment changes the kind of input that the data gives",
        lambda f: f"augment=[{','.join(f.run.augment)}]",
        lambda f: bool(_foreign(f)),
        _changes,
        _fitting,
    ),
    Rule(
        "colours-first", "refuse", "colours are changed before images are normalised",
        lambda f: f"augment=[{','.join(f.run.augment)}]",
        lambda f: bool(_late(f)),
        lambda f: f"{_late(f)[0]} works on pixels as they are stored, what stands before it on normalised ones",
        lambda f: f"try augment=[{','.join([*_late(f), *(n for n in f.run.augment if n not in _late(f))])}]",
    ),
    Rule(
        "mixed-once", "refuse", "a sample is mixed in one way at most",
        "augment=[mixup,cutmix]",
        lambda f: sum(f.run.augment[name].probability for name in MIXING if name in f.run.augment) > 1 + 1e-9,  # type: ignore[attr-defined]
        "the probabilities of the two add up to more than 1",
        "try " + " ".join(f"augment.transforms.{name}.probability=0.5" for name in MIXING),
    ),
    Rule(
        "sizes-that-stay", "refuse", "stages and shared sequences wait for samples of one size",
        _grows,
        lambda f: bool(_growing(f)) and max(f.sizes["pipeline"], f.sizes["context"]) > 1,
        lambda f: f"strategy={f.run.strategy.option} passes on samples of one size",
        lambda f: _without(f, GROWING),
    ),
    Rule(
        "sizes-that-a-model-reads", "refuse", "progressive_resize needs a model that reads images of any size",
        "augment=[progressive_resize]",
        lambda f: "progressive_resize" in f.run.augment and _reads_one_size(f),
        lambda f: f"model={_option(f)} reads images of one size",
        "try model=resnet or model=cnn",
    ),
    Rule(
        "largest-size-is-last", "refuse", "train.micro_batch=auto is measured on the first batches",
        "train.micro_batch=auto",
        lambda f: bool(_growing(f)) and f.run.train.micro_batch == "auto",
        lambda f: f"the first batches are the smallest ({', '.join(_growing(f))}): what fits would not fit later",
        "try train.micro_batch=null, or a number",
    ),
    Rule(
        "each-size-compiles", "warn", "each size of a batch is compiled anew",
        lambda f: f"compile={f.run.compile.option}",
        lambda f: bool(_growing(f)) and f.run.compile.option != "none",
        lambda f: f"{', '.join(_growing(f))}: each size of a batch is compiled anew",
        "try compile=none, or fewer sizes",
    ),
    Rule(
        "views-of-the-whole-model", "refuse", "several views of an image need a model that can be called for each",
        lambda f: f"task.test_time_augmentation={_views(f)}",
        lambda f: _views(f) != "none" and f.sizes["pipeline"] > 1,
        lambda f: f"strategy={f.run.strategy.option} evaluates each batch once",
        "try task.test_time_augmentation=none",
    ),
    Rule(
        "views-of-images", "refuse", "several views are those of images",
        lambda f: f"task.test_time_augmentation={_views(f)}",
        lambda f: _views(f) != "none" and f.run.task.option != "auto" and f.run.data.input_kind not in ("image", None),
        lambda f: f"mirrors images; {f.run.data.option} gives {SEVERAL_OF[f.run.data.input_kind]}",
        "try task.test_time_augmentation=none",
    ),
)  # fmt: skip
