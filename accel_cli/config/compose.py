"""Overrides and a recipe in, one plain resolved tree out. The only importer of Hydra.

Hydra's own grammar holds, with two differences that users asked for: ``strategy=ddp`` and ``+strategy=ddp`` both work
for every group, and a key that does not exist is found by the schema, with suggestions, instead of being added.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from accel_cli.config import tree
from accel_cli.config.axes import Axis
from accel_cli.config.layers import Layer, final_choices, flat, read_base, read_recipe, with_presets, without_replaced
from accel_cli.config.names import Names
from accel_cli.config.parts import SEVERAL
from accel_cli.config.references import BROKEN, is_broken, resolved
from accel_cli.config.request import Request, Word, take_apart
from accel_cli.errors import ConfigError, Problem, SecurityError

LARGEST_SWEEP = 10_000
LONGEST_WORD = 20_000
DEEPEST_VALUE = 30


@dataclass(frozen=True)
class Composed:
    """The tree as plain containers, and where each part of it came from."""

    tree: dict[str, Any]
    choices: dict[str, list[str]]
    request: Request
    """With the problems of names and grammar; the tree is composed without the words that have one."""
    names: Names
    layers: list[Layer]
    """Files that lie between the defaults and the command line, the lowest first."""

    @property
    def spelling(self) -> dict[str, str]:
        """Group or full key -> the words that set it: a file and its line of it, or the override as typed."""
        found: dict[str, str] = {}
        for layer in self.layers:
            found.update(layer.spelling())
        return {**found, **self.request.spelling}


def axes(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[str | Axis]:
    """The words of a sweep in Hydra's grammar, in order: an Axis for ``a=1,2``, ``range``, ``choice``, ``glob`` and
    ``interval``, with ``tag(log, ...)``; the others as they are.

    Raises ConfigError for a word that is wrong whatever the point: its key, its grammar, or that it has no values.
    """
    names = Names(config_dirs)
    parts = [axis(text, names) for text in overrides]
    found = [part for part in parts if isinstance(part, Axis)]
    if not found:
        why = "no word has several values: there is nothing to sweep"
        raise ConfigError(Problem(" ".join(overrides) or "sweep", why, "try optimizer.learning_rate=0.1,0.01"))
    request = parse([part for part in parts if isinstance(part, str)], names)
    keys = [axis.key for axis in found]
    for axis in found:
        text = f"{axis.key}={axis.typed}"
        if keys.count(axis.key) > 1 or axis.key in {**request.choices, **request.values, **request.deleted}:
            request.refuse(Problem(text, f"{axis.key} is given twice", "keep one of them"))
        elif axis.key not in (*names.options, "recipe"):
            request.values[axis.key] = text
    for key, text in request.values.items():
        if problem := names.key_problem(key, text) or names.absent(key, text):
            request.refuse(problem)
    if request.problems:
        raise (SecurityError if request.forbidden else ConfigError)(request.problems)
    return parts


def axis(text: str, names: Names) -> str | Axis:
    """One word: an Axis where it has several values. Raises ConfigError for one that has none to try one by one."""
    override = _override(text)
    if not override.is_sweep_override():
        return text
    key, typed, value = override.key_or_group, text.partition("=")[2], override.value()
    if unknown := sorted(getattr(value, "tags", set()) - ({"log"} if isinstance(value, IntervalSweep) else set())):
        raise ConfigError(Problem(text, f"the tag {unknown[0]} has no meaning here", "log has, on an interval"))
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if not low < high or ("log" in value.tags and low <= 0):
            why = "a logarithm begins above 0" if low < high else "an interval ends above its beginning"
            raise ConfigError(Problem(text, why, f"try {key}=tag(log, interval(0.001,0.1))"))
        return Axis(key, typed, (), low, high, "log" in value.tags)
    if isinstance(value, Glob):
        values = value.filter(list(names.options.get(key, ())))
    else:
        values = list(itertools.islice(_points(override), LARGEST_SWEEP + 1))
    if not 0 < len(values) <= LARGEST_SWEEP:
        raise ConfigError(Problem(text, "has no values to try one by one", f"try {key}=0.1,0.2,0.3"))
    return Axis(key, typed, tuple(values))


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = (), base: Path | None = None) -> Composed:
    """Compose one run from the command line's words, over the defaults or over another run's ``base`` run.yaml.

    Problems of the first door (names and grammar) come with the tree, so that the next doors can add their own.
    """
    names = Names([folder for folder in config_dirs if folder.is_dir()])
    request = take_apart([_word(text) for text in overrides], names)
    for folder in config_dirs:
        if not folder.is_dir():
            request.refuse(Problem(f"--config-dir {folder}", "no such folder", "check the path"), *names.tops)
    layers = _layers(request, names, base)
    chosen = final_choices(layers, names.defaults)
    _refuse_unchosen(request, chosen)
    composed = Composed({}, chosen, request, names, layers)
    node = resolved(_hydra(request, chosen, layers), request, names, composed.spelling)
    return replace(composed, tree=_attach_names(node, chosen))


def parse(overrides: Sequence[str], names: Names) -> Request:
    """The first door alone: what was asked for, and what is wrong with its names and grammar."""
    return take_apart([_word(text) for text in overrides], names)


def _override(text: str) -> Override:
    """Raises ConfigError for a word that is not in Hydra's grammar."""
    key, equals, written = text.partition("=")
    if not equals and not text.startswith("~"):
        raise ConfigError(Problem(text, "not an override", f"try {key}=..., or train.epochs=3"))
    if len(text) > LONGEST_WORD or _depth(written) > DEEPEST_VALUE:
        why = "longer than 20,000 characters" if len(text) > LONGEST_WORD else "nested too deep"
        raise ConfigError(Problem(text, why, "write it into a recipe, +recipe=FILE.yaml, or make it shorter"))
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError, ValueError, AttributeError):
        raise ConfigError(_grammar_problem(text)) from None


def _grammar_problem(text: str) -> Problem:
    key, _, written = text.partition("=")
    name = key.lstrip("+~/")
    if key.lstrip("+~").startswith("/"):
        return Problem(text, "a group has no / before it", f"try {name}={written}")
    if not re.fullmatch(r"[\w./@:-]+", name):
        return Problem(text, "what stands before = is not a key", "write group.key=value, such as train.epochs=3")
    why = "its value has unbalanced quotes or brackets, or special characters"
    if "'" in written or '"' in written:
        return Problem(text, why, f"close what is open, or try {name}=...")
    return Problem(text, why, f"quote it: '{name}=\"{written}\"'")


def _word(text: str) -> Word | ConfigError:
    try:
        override = _override(text)
        value = _plain(override.value())
    except ConfigError as error:
        return ConfigError(error.problems)
    if is_broken(value):
        return ConfigError(Problem(text, *BROKEN))
    key = override.key_or_group.lstrip("/").replace("/", ".")
    sweep = tuple(itertools.islice(_points(override), 3)) if override.is_sweep_override() else None
    return Word(text, key, text.partition("=")[2], value, override.package, override.is_delete(), sweep)


def _depth(text: str) -> int:
    return max(itertools.accumulate((c in "[{(") - (c in "]})") for c in text), default=0)


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    return value


def _points(override: Override) -> Iterator[str]:
    try:
        yield from override.sweep_string_iterator()
    except (HydraException, NotImplementedError, AttributeError, TypeError, ValueError):
        return


def _layers(request: Request, names: Names, base: Path | None) -> list[Layer]:
    """The layers of all files, in order, and as the last the command line's choices, without its values."""
    read = [(read_base, base)] if base else []
    layers: list[Layer] = []
    for reader, path in [*read, *((read_recipe, path) for path in request.recipes)]:
        with request.collecting(*names.tops):
            layers += map(_refuse_broken, with_presets(reader(path, names), names, {}))
    for group, chosen in request.choices.items():
        with request.collecting(group):
            layers += map(_refuse_broken, with_presets(Layer("", {group: chosen}), names, request.spelling))
    return without_replaced(layers, names.defaults)


def _refuse_broken(layer: Layer) -> Layer:
    """Raises ConfigError for a value of a file that is no whole reference, such as ``${``."""
    spelling = layer.spelling()
    for key, value in flat(layer.values):
        if is_broken(value):
            raise ConfigError(Problem(spelling[key], *BROKEN))
    return layer


def _refuse_unchosen(request: Request, chosen: dict[str, list[str]]) -> None:
    """Values of an option of a group that takes several, where that option was not chosen."""
    for key in [*request.values, *request.deleted]:
        parts = key.split(".")
        if len(parts) < 3 or parts[0] not in SEVERAL or parts[2] in chosen[parts[0]]:
            continue
        text = request.values.pop(key, "") or request.deleted.pop(key, "")
        group, option = parts[0], parts[2]
        others = [name for name in chosen[group] if name != "none"]
        fix = f"change to {group}=[{','.join([*others, option])}]" if others else f"add {group}={option}"
        if group not in request.spoiled:
            request.refuse(Problem(text, f"{group}={option} is not chosen", fix), key)


def _hydra(request: Request, chosen: dict[str, list[str]], layers: Sequence[Layer]) -> DictConfig:
    """Let Hydra compose the chosen options, the layers' values over them, and the command line's over those."""
    store = ConfigStore.instance()
    store.repo.pop("layer", None)
    for unused in ("launcher", "sweeper"):
        store.store(name="basic", node={}, group=f"hydra/{unused}")
    layers = [layer for layer in layers if layer.values]
    for index, layer in enumerate(layers):
        store.store(name=f"n{index}", node=OmegaConf.create(layer.values), group="layer", package="_global_")
    lines = [f"+layer=[{','.join(f'n{index}' for index in range(len(layers)))}]"] if layers else []
    for group, options in chosen.items():
        lines.append(f"{group}=[{','.join(options)}]" if group in SEVERAL else f"{group}={options[0]}")
    lines += [f"++{key}={text.partition('=')[2]}" for key, text in request.values.items()]
    lines += [f"~{key}" for key in request.deleted]

    # The three sources that composing needs. Looking for plugins would cost as much again, and import strangers' code.
    for source in (FileConfigSource, ImportlibResourcesConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().register(source)
    search_path = ConfigSearchPathImpl()
    search_path.append("hydra", "pkg://hydra.conf")
    search_path.append("accel", f"file://{tree.shipped('configs')}")
    search_path.append("schema", "structured://")
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("accel", search_path)
        config = hydra.compose_config("train", lines, RunMode.RUN, from_shell=False, with_log_configuration=False)
        return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([*request.problems, _translate(error, request)]) from None
    finally:
        GlobalHydra.instance().clear()


def _translate(error: Exception, request: Request) -> Problem:
    """What only Hydra saw, such as a key to delete that is not there."""
    words = {**request.values, **request.deleted}
    text = next((text for key, text in words.items() if key in str(error)), " ".join(words.values()) or "configuration")
    if text in request.deleted.values():
        return Problem(text, "there is no such key to take away", "leave it out; accel show prints the composed tree")
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return Problem(text, f"cannot be set: {reason[:120]}", "see accel show for the composed tree")


def _attach_names(node: dict[str, Any], choices: dict[str, list[str]]) -> dict[str, Any]:
    """Each option learns its own name, under the key ``option``."""
    for group, chosen in choices.items():
        part = node.get(group)
        if group in SEVERAL:
            held = part.get(SEVERAL[group]) if isinstance(part, dict) else None
            for name, option in held.items() if isinstance(held, dict) else ():
                if isinstance(option, dict):
                    option["option"] = name
        elif isinstance(part, dict):
            part["option"] = chosen[0]
        elif part is None:
            node[group] = {"option": chosen[0]}
    return node
