"""What an override under the cursor can become: the option tree as the words before it choose from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from accel_cli.cli.yaml_keys import choices, keys, starts_from
from accel_cli.config import tree
from accel_cli.config.parts import GROUPS

Words = dict[str, str]
"""Candidate -> its meaning."""


@dataclass(frozen=True)
class Typed:
    """The option tree as the words before the cursor choose from it."""

    before: Sequence[str]

    @cached_property
    def folders(self) -> list[Path]:
        pairs = zip(self.before, self.before[1:], strict=False)
        return [Path(word).expanduser() for flag, word in pairs if flag == "--config-dir"]

    @cached_property
    def groups(self) -> Words:
        """Group -> the option that stands now."""
        found = dict.fromkeys(GROUPS, "") | choices(tree.shipped("configs") / "train.yaml")
        return {group: self.chosen.get(group, option) for group, option in found.items()}

    @cached_property
    def chosen(self) -> Words:
        words = (word.lstrip("+").partition("=") for word in self.before if "=" in word)
        return {key: value for key, _, value in words if key in GROUPS}

    def overrides(self, current: str) -> Words:
        """Of group=option, key=value and recipe=name, with the + or ~ that was typed."""
        body = current.lstrip("+~")
        sign = current[: len(current) - len(body)]
        key, equals, value = body.partition("=")
        if equals:
            found = {f"{key}={text}": meaning for text, meaning in self._choices(key, value).items()}
        elif sign == "~":
            found = {**{group: f"{option} now" for group, option in self.groups.items()}, **self.keys(body)}
        elif "." in body:
            found = {f"{full}=": meaning for full, meaning in self.keys(body).items()}
        else:
            found = {
                top if top.endswith(".") else f"{top}=": meaning
                for top, meaning in self.tops().items()
                if top not in self.chosen
            }
            found |= {f"{body}.": "its keys"} if body in self.groups else {}
            if not sign:
                found["+recipe="] = "a whole run of one name"
            elif sign == "+":
                found["recipe="] = "a whole run of one name"
        return {text if text[0] == "+" else sign + text: meaning for text, meaning in found.items()}

    def formats(self, current: str) -> Words:
        """Of format=option and of the keys of the group export."""
        key, equals, value = current.partition("=")
        if equals and key in ("format", "export"):
            return {
                f"{key}={text}": meaning for text, meaning in self._choices("export", value).items() if text != "none"
            }
        if equals or "." in current:
            return self.overrides(current) if current.startswith("export.") else {}
        first = {} if "export" in self.chosen else {"format=": "what the model becomes"}
        return {**first, **({"export.": "its keys"} if self.keys("export.") else {})}

    def tops(self) -> Words:
        """Groups, with the option that stands now, and the beginnings of the sections' keys."""
        sections = dict.fromkeys(f"{key.partition('.')[0]}." for key in self._train_keys)
        return {group: f"{option} now" for group, option in self.groups.items()} | dict.fromkeys(sections, "settings")

    def _choices(self, key: str, value: str) -> Words:
        """Values of a key: a group's options, also after a comma or in a list; recipes; a key's own words."""
        if key == "recipe":
            return {name: tree.headline(path) for name, path in tree.recipes(self.folders).items()}
        if key in self.groups:
            kept = value[: max(value.rfind(","), value.rfind("[")) + 1]
            return {kept + name: tree.headline(path) for name, path in tree.options(key, self.folders).items()}
        return dict.fromkeys(self._words_of(key), "")

    @cached_property
    def _train_keys(self) -> Words:
        return keys(tree.shipped("configs") / "train.yaml")

    def keys(self, body: str = "") -> Words:
        """Full keys: of the sections, and of each group's chosen option; of all its options where that has no such."""
        found = dict(self._train_keys)
        for group, option in self.groups.items():
            if body and not body.startswith(f"{group}."):
                continue
            paths = tree.options(group)
            chosen = [self._accels(group, name) for name in option.strip("[]").split(",")]
            for names in (chosen, paths):
                fitting = {
                    key: meaning
                    for name in names
                    if name in paths
                    for key, meaning in keys(paths[name], group).items()
                    if key.startswith(body) and not meaning.startswith("none:")
                }
                if fitting:
                    found |= fitting
                    break
        return found

    def _accels(self, group: str, option: str) -> str:
        """The option of accel's own that a name stands for, which may be a user's file."""
        path = tree.options(group, self.folders).get(option)
        return starts_from(path) if path else option

    def _words_of(self, key: str) -> Iterable[str]:
        """The words that the schema names for a key, and true and false."""
        from accel_cli.cli.key_types import words_of

        top, _, name = key.rpartition(".")
        group = top.partition(".")[0]
        if group in self.groups:
            table = import_module(f"accel_cli.config.schema.{group}").OPTIONS
            chosen = self._accels(group, self.groups[group])
            wanted = [table[option] for option in (chosen, top.rpartition(".")[2]) if option in table]
            schemas = [entry.schema for entry in (*wanted, *table.values())]
        else:
            schemas = [import_module("accel_cli.config.schema.sections").SECTIONS[top]]
        owner = next(schema for schema in schemas if name in schema.model_fields)
        return words_of(owner.model_fields[name].annotation)
