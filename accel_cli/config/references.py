"""References such as ${train.seed}: which values hold one, and the values of the keys they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from accel_cli.config.names import Names
from accel_cli.config.request import Request
from accel_cli.config.suggest import did_you_mean
from accel_cli.errors import Problem

BROKEN = ("${ begins a reference to a key", "try ${train.seed}, or leave the $ out")


def is_broken(value: Any) -> bool:
    """Whether a text somewhere in ``value`` begins a reference and does not end it."""
    return any(_fails(text) for text in _interpolations(value))


def resolved(config: DictConfig, request: Request, names: Names, spelling: dict[str, str]) -> dict[str, Any]:
    """Plain containers with every ${key} replaced by the value of that key; a reference that fails becomes null."""
    for holder, key in _references(config):
        full = re.sub(r"\[\d+\].*", "", holder._get_full_key(key))
        try:
            value = holder[key]
            problem = ("refers to keys; only values can be referred to", "write them out") if _is_node(value) else None
        except RecursionError:
            problem = ("refers to itself", "write the value itself")
        except OmegaConfBaseException as error:
            problem = _reference_problem(str(error), names)
        if problem:
            holder._set_item_impl(key, None)
            request.refuse(Problem(spelling.get(full, full), *problem), full)
    found = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _references(node: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every interpolation below ``node``."""
    found = []
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in list(keys):
        if OmegaConf.is_interpolation(node, key):
            found.append((node, key))
        elif _is_node(child := node._get_node(key)) and not child._is_none() and not child._is_missing():
            found += _references(child)
    return found


def _is_node(value: Any) -> bool:
    return isinstance(value, DictConfig | ListConfig)


def _reference_problem(message: str, names: Names) -> tuple[str, str]:
    if "recursi" in message.lower():
        return "refers to itself", "write the value itself"
    missing = re.search(r"Interpolation key '([^']+)' not found", message)
    if missing:
        near = [f"${{{key}}}" for key in names.near_keys(missing[1])]
        return f"there is no key {missing[1]}", did_you_mean(near) or "write the value itself"
    return "refers to something that is no value", "write the value itself"


def _interpolations(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _interpolations(part)


def _fails(reference: str) -> bool:
    try:
        OmegaConf.create({"value": reference})
    except (OmegaConfBaseException, RecursionError):
        return True
    return False
