"""Every name a user can type: groups, options, recipes, keys; and what she meant when there is no such name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_origin

from accel_cli.config import tree
from accel_cli.config.parts import GROUPS, SEVERAL, own_keys, table
from accel_cli.config.schema.base import Section
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import Problem

OTHER_NAMES = {
    "lr": "optimizer.learning_rate", "wd": "optimizer.weight_decay", "betas": "optimizer.beta1",
    "batch_size": "train.global_batch", "batch": "train.global_batch", "bs": "train.global_batch",
    "max_epochs": "train.epochs", "num_epochs": "train.epochs", "max_steps": "train.steps", "iterations": "train.steps",
    "gradient_clip_val": "train.clip_norm", "max_grad_norm": "train.clip_norm", "random_seed": "train.seed",
    "gpus": "launch.processes", "nproc_per_node": "launch.processes", "world_size": "launch.processes",
    "num_workers": "loader.workers", "device": "hardware", "accelerator": "hardware", "amp": "precision",
    "dtype": "precision", "dataset": "data", "net": "model", "arch": "model", "loss": "task", "scheduler": "schedule",
    "logger": "tracking", "warmup_steps": "schedule.warmup", "hidden_size": "model.width", "num_layers": "model.depth",
}  # fmt: skip
"""What other tools call a key or a group -> what it is called here."""


class Names:
    """The names of the option tree, with the user's own ``--config-dir`` folders on top."""

    def __init__(self, config_dirs: Sequence[Path] = ()) -> None:
        self.options = tree.all_options(config_dirs)
        self.recipes = tree.recipes(config_dirs)
        self.tops = [*GROUPS, *SECTIONS, "recipe"]

    @cached_property
    def defaults(self) -> dict[str, str]:
        """Group -> the option that train.yaml chooses."""
        listed = tree.read_yaml(tree.shipped("configs") / "train.yaml")["defaults"]
        return {group: option for item in listed if isinstance(item, dict) for group, option in item.items()}

    @cached_property
    def keys(self) -> dict[str, list[str]]:
        """Full key -> the options that have it (empty for a section's key)."""
        found: dict[str, list[str]] = {}
        for full, option, _, _ in _fields():
            found.setdefault(full, []).extend([option] if option else [])
        return found

    @cached_property
    def holders(self) -> frozenset[str]:
        """Full keys that hold keys of the user's own, such as model.args."""
        return frozenset(
            f for f, _, schema, key in _fields() if get_origin(schema.model_fields[key].annotation) is dict
        )

    def key_problem(self, key: str, text: str) -> Problem | None:
        """What is wrong with a value's key as far as names tell; which option has it, the schema knows."""
        top, dot, rest = key.partition(".")
        value = text.partition("=")[2] or "..."
        if top not in SECTIONS and top not in GROUPS:
            return self.unknown_key(key, text)
        if not dot and top in SECTIONS:
            return Problem(text, f"{top} is a section of several keys", f"try {self._example(top)}={value}")
        if rest == "option" or (top in SEVERAL and rest.endswith(".option")):
            return Problem(text, "an option is chosen by its group", f"try {top}={value}")
        if top in SEVERAL and rest.partition(".")[0] != SEVERAL[top] and key not in self.keys:
            return self.unknown_key(key, text)
        owner = next((k for k in _above(key) if k in self.keys), None)
        if owner is not None and owner not in self.holders:
            return Problem(text, f"{owner} is one value; nothing lies below it", f"set {owner} as a whole")
        if top in SEVERAL and key not in self.keys and owner is None and rest != SEVERAL[top]:
            return self.unknown_key(key, text)
        return None

    def absent(self, key: str, text: str) -> Problem | None:
        """A key that no option has, where that does not depend on the names of the user's own options."""
        known = key in self.keys or any(key.startswith(f"{holder}.") for holder in self.holders)
        return None if known or key.partition(".")[0] in SEVERAL else self.unknown_key(key, text)

    def unknown(self, group: str, name: str, candidates: Iterable[str], text: str, key: str = "") -> Problem:
        """An option that its group does not have; ``key`` is what stands before the = of a suggestion."""
        candidates = list(candidates)
        if group == "hardware" and name in self.options["export"]:
            why = f"{name} is a form that a trained model is exported to; the host trains it"
            return Problem(text, why, f"try export={name}")
        found = [f"{key or group}={near}" for near in nearest(name, candidates)]
        if not found and group in self.options:
            found = [f"{g}={name}" for g, options in self.options.items() if name in options][:3]
        known = f"one of: {', '.join(candidates)}" if candidates else f"there is none; leave {group} out"
        what = f"no such {group}" if group == "recipe" else f"{group} has no option {name[:40]}"
        return Problem(text, what, did_you_mean(found) or known)

    def unknown_key(self, key: str, text: str) -> Problem:
        """A key or group that does not exist, with the three nearest."""
        found = self.meant(key, text.partition("=")[2])
        what = "key" if "." in key else "group or key"
        return Problem(text, f"no such {what}", did_you_mean(found) or "see accel list, and accel show for keys")

    def meant(self, key: str, value: str = "") -> list[str]:
        """Up to three groups or full keys that ``key`` may have been meant for, with ``value`` where there is one."""
        suffix = f"={value}" if value else ""
        return [f"{near}{suffix}" for near in (self.near_keys(key) if "." in key else self._near_tops(key, value))][:3]

    def _near_tops(self, key: str, value: str) -> list[str]:
        groups = nearest(key, self.tops)
        fitting = [g for g in groups if value in self.options.get(g, {})]
        found = list(fitting)
        found += [OTHER_NAMES[key]] if key in OTHER_NAMES else []
        found += [full for full in self.keys if full.rpartition(".")[2] == key]
        found += groups
        leaves = nearest(key, {full.rpartition(".")[2] for full in self.keys}, 2)
        found += [full for leaf in leaves for full in self.keys if full.rpartition(".")[2] == leaf]
        if not fitting:
            found += [group for group, options in self.options.items() if value in options]
        return list(dict.fromkeys(self._example(name) if name in SECTIONS else name for name in found))

    def near_keys(self, key: str, first: Sequence[str] = ()) -> list[str]:
        """The nearest full keys, those of ``first`` in front where they are as near."""
        leaf = key.rpartition(".")[2]
        found = nearest(key, first)
        found += [OTHER_NAMES[leaf]] if OTHER_NAMES.get(leaf) in self.keys else []
        found += nearest(key, self.keys)
        found += [full for full in self.keys if full.rpartition(".")[2] == leaf]
        return list(dict.fromkeys(found))[:3]

    def _example(self, section: str) -> str:
        return f"{section}.{next(iter(SECTIONS[section].model_fields))}"


def _fields() -> Iterator[tuple[str, str, type[Section], str]]:
    """(full key, option or "", schema, key) of everything that can be set."""
    for name, section in SECTIONS.items():
        yield from ((f"{name}.{key}", "", section, key) for key in section.model_fields)
    for group in GROUPS:
        if group in SEVERAL and (own := own_keys(group)) is not None:
            yield from ((f"{group}.{key}", "", own, key) for key in own.model_fields)
        for option, entry in table(group).items():
            prefix = f"{group}.{SEVERAL[group]}.{option}" if group in SEVERAL else group
            for key in entry.schema.model_fields:
                if key != "option" and not (group in SEVERAL and option == "none"):
                    yield f"{prefix}.{key}", option, entry.schema, key


def _above(key: str) -> list[str]:
    """Full keys that ``key`` lies below, the nearest first."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 1, -1)]
