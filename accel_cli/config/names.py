"""Every name a user can type: groups, options, recipes, keys; and what she meant when there is no such name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from accel_cli.config import tree
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import Problem


class Names:
    """The names of the option tree, with the user's own ``--config-dir`` folders on top."""

    def __init__(self, config_dirs: Sequence[Path] = ()) -> None:
        self.options = tree.all_options(config_dirs)
        self.recipes = tree.recipes(config_dirs)

    @cached_property
    def keys(self) -> dict[str, list[str]]:
        """Full key -> the options that have it (empty for a section's key)."""
        found: dict[str, list[str]] = {
            f"{name}.{key}": [] for name, section in SECTIONS.items() for key in section.model_fields
        }
        for group in GROUPS:
            for option, entry in table(group).items():
                prefix = f"{group}.{SEVERAL[group]}.{option}" if group in SEVERAL else group
                for key in entry.schema.model_fields:
                    if key != "option":
                        found.setdefault(f"{prefix}.{key}", []).append(option)
        return found

    @property
    def tops(self) -> list[str]:
        return [*GROUPS, *SECTIONS, "recipe"]

    def key_problem(self, key: str, text: str) -> Problem | None:
        """What is wrong with a value's key as far as names tell; which option has it, the schema knows."""
        top, dot, rest = key.partition(".")
        if top not in SECTIONS and top not in GROUPS:
            return self.unknown_key(key, text)
        if not dot and top in SECTIONS:
            return Problem(text, f"{top} is a section of several keys", f"try {self._examples(top)}")
        if rest == "option" or rest.endswith(".option"):
            return Problem(text, "an option is chosen by its group", f"try {top}={text.partition('=')[2] or '...'}")
        return None

    def unknown(self, group: str, name: str, candidates: Iterable[str], text: str) -> Problem:
        """An option that its group does not have."""
        prefix = text.split("=")[0].lstrip("+~") if "=" in text else group
        found = [f"{prefix}={near}" for near in nearest(name, candidates)]
        if not found:
            found = [f"{g}={name}" for g, options in self.options.items() if name in options][:3]
        return Problem(
            text,
            f"{group} has no option {name[:40]}",
            did_you_mean(found) or f"one of: {', '.join(candidates)}",
        )

    def unknown_key(self, key: str, text: str) -> Problem:
        """A key or group that does not exist, with the three nearest."""
        value = text.partition("=")[2]
        return Problem(text, "no such " + ("key" if "." in key else "group"), did_you_mean(self._meant(key, value)))

    def _meant(self, key: str, value: str) -> list[str]:
        suffix = f"={value}" if value else ""
        if "." not in key:
            groups = nearest(key, self.tops)
            by_value = [g for g in groups if value in self.options.get(g, {})]
            leaves = [full for full in self.keys if full.rpartition(".")[2] == key]
            near_leaves = [f for near in nearest(key, {f.rpartition(".")[2] for f in self.keys}, 2)
                           for f in self.keys if f.rpartition(".")[2] == near]  # fmt: skip
            owners = [g for g, options in self.options.items() if key in options and not suffix]
            found = [*by_value, *groups, *leaves, *near_leaves]
            sections = [g if g not in SECTIONS else self._examples(g).split("=")[0] for g in found]
            return [f"{s}{suffix}" for s in dict.fromkeys(sections)][:3] or [f"{g}={key}" for g in owners][:3]
        return [f"{near}{suffix}" for near in self.near_keys(key)]

    def near_keys(self, key: str, options: Iterable[str] | None = None) -> list[str]:
        """The nearest full keys; of ``options`` first, when given."""
        pool = list(self.keys)
        found = nearest(key, pool)
        leaf = key.rpartition(".")[2]
        found += [full for full in pool if full.rpartition(".")[2] == leaf and full not in found]
        return found[:3]

    def _examples(self, section: str) -> str:
        return f"{section}.{next(iter(SECTIONS[section].model_fields))}=..."
