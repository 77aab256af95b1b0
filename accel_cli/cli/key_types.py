"""What may stand at a key, in words, from the schema's types and ranges."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic.fields import FieldInfo

PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null", Any: "any value"}
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def type_text(field: FieldInfo) -> str:
    """``whole number >= 1 or null``, ``one of none, linear, sqrt``, ``list of text``."""
    found = _text(field.annotation, field.metadata)
    return f"{found}, to be given" if _is_required(field) else found


def _is_required(field: FieldInfo) -> bool:
    return any(type(note).__name__ == "BeforeValidator" for note in field.metadata)


def _text(annotation: Any, notes: Iterable[Any] = ()) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _text(inner[0], [*_notes(inner[1:]), *notes])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_text(part, notes if part in (int, float) else ()) for part in inner)
    if origin is typing.Literal:
        words = [str(word) for word in inner]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if origin in (list, tuple):
        parts = [part for part in inner if part is not ...]
        return f"list of {_text(parts[0])}" if parts else "list"
    if origin is dict or annotation is dict:
        return "keys with values"
    return " ".join([PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation))), _range(notes)]).strip()


def _notes(notes: Iterable[Any]) -> list[Any]:
    """Annotated holds a Field as a whole; its limits are in its own metadata."""
    return [inner for note in notes for inner in (note.metadata if isinstance(note, FieldInfo) else [note])]


def _range(notes: Iterable[Any]) -> str:
    limits = [f"{sign} {getattr(note, name)}" for note in notes for name, sign in SIGNS.items() if hasattr(note, name)]
    return " and ".join(limits)


def words_of(annotation: Any) -> list[str]:
    """The words that a type names: those of its Literals, and true and false."""
    if annotation is bool:
        return ["true", "false"]
    if typing.get_origin(annotation) is typing.Literal:
        return [str(word) for word in typing.get_args(annotation)]
    return [word for part in typing.get_args(annotation) for word in words_of(part)]
