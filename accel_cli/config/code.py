"""Words that would have code run by name; no configuration may hold one, at any depth."""

from __future__ import annotations

import re
from typing import Any

from accel_cli.errors import ConfigError, Problem, SecurityError

CODE_KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
_RESOLVER = re.compile(r"\$\{[^}]*:")


def code_key(value: Any) -> str | None:
    """The first key below ``value`` that Hydra's instantiate would act on."""
    if isinstance(value, dict):
        own = next((str(key) for key in value if key in CODE_KEYS), None)
        return own or next((found for part in value.values() if (found := code_key(part))), None)
    if isinstance(value, list):
        return next((found for part in value if (found := code_key(part))), None)
    return None


def has_resolver(text: str) -> bool:
    """Whether ``text`` holds an interpolation that computes, such as ${oc.env:HOME}; ${train.seed} does not."""
    return _RESOLVER.search(text) is not None


def refuse_code(content: Any, where: str) -> None:
    """Raises SecurityError for a file's content that names code, ConfigError for a resolver in it."""
    if key := code_key(content):
        fix = "take it out; your own code enters by factory: package.module:name"
        raise SecurityError(Problem(where, f"{key} would run code by name", fix))
    if text := next((text for text in _texts(content) if has_resolver(text)), None):
        raise ConfigError(Problem(f"{where}: {text}", "resolvers are not supported", "write the value itself"))


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, dict):
        return [text for key, part in content.items() for text in [str(key), *_texts(part)]]
    return [text for part in content for text in _texts(part)] if isinstance(content, list) else []
