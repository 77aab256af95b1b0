"""The base class of every option's schema, and the row that ties a name to its implementation."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Types, ranges, units and one-line meanings. Defaults live in the YAML, once; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Option(Section):
    """One chosen option of a group; ``option`` is its name, put there by composing."""

    option: str

    @property
    def packages(self) -> dict[str, str]:
        """Packages beyond the core dependencies that the value of a key asks for: key -> importable name."""
        return {}


class Entry(NamedTuple):
    """A row of a group's table: option name -> its schema, its implementation, and the extras that it needs."""

    schema: type[Option]
    implementation: str
    """``module:name``, imported only when a run has chosen it."""
    requires: tuple[str, ...] = ()
    """Importable names of packages that are not core dependencies."""
    extra: str = ""
    """Their extra in pyproject.toml; empty: each has one of its own name."""
    programs: tuple[str, ...] = ()
    """What has to be on PATH."""

    def installing(self, package: str) -> str:
        """What to type where ``package`` is absent."""
        return f"pip install 'accel-cli[{self.extra or package}]'"
