"""What a rule is, and what it may judge: the run, the machine, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from accel_cli.config.machine import Machine
from accel_cli.config.request import LENGTHS
from accel_cli.config.run import Run
from accel_cli.errors import Problem


@dataclass(frozen=True)
class Facts:
    """All that a rule may judge."""

    run: Run
    machine: Machine
    plugins: Sequence[str] = ()

    @property
    def processes(self) -> int:
        """Ranks on each node."""
        return int(self.run.launch.processes)

    @property
    def world_size(self) -> int:
        """Ranks of the run on all its nodes; of an elastic run at its largest."""
        return int(self.processes * self.run.launch.most_nodes)

    @property
    def world_sizes(self) -> list[int]:
        """Every number of ranks that the run may have: one, unless it is elastic."""
        launch = self.run.launch
        return [self.processes * nodes for nodes in range(launch.least_nodes, launch.most_nodes + 1)]

    @property
    def sizes(self) -> dict[str, int]:
        """Ranks along every dimension of the strategy's mesh; of an elastic run at its largest."""
        sizes: dict[str, int] = self.run.strategy.sizes(self.world_size)
        return sizes

    @property
    def lengths(self) -> list[str]:
        """The keys of ``train`` that state a length: one, if the run is right."""
        return [key for key in LENGTHS if getattr(self.run.train, key) is not None]

    @property
    def steps(self) -> int | None:
        """Of the run; None where only the data can tell, or where its length is not stated once."""
        train = self.run.train
        if len(self.lengths) != 1 or train.epochs is not None:
            return None
        return int(train.steps or math.ceil(train.samples / train.global_batch))

    @property
    def device(self) -> str:
        return str(self.run.hardware.option)

    @property
    def kernels(self) -> str:
        return str(self.run.precision.option)


Text = str | Callable[[Facts], str]


@dataclass(frozen=True)
class Rule:
    """``refuse`` ends the command with exit 2, ``warn`` goes on and says so."""

    id: str
    level: Literal["refuse", "warn"]
    text: str
    """The rule in one line, for whoever reads the table."""
    where: Text
    when: Callable[[Facts], bool]
    why: Text
    fix: Text
    """An override to type."""

    def problem(self, facts: Facts) -> Problem:
        return Problem(
            *(value if isinstance(value, str) else value(facts) for value in (self.where, self.why, self.fix))
        )


class Watched:
    """A run that keeps account of the keys that were read from it, so that a rule about a doubtful key is not asked."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._run, name)
        if isinstance(part, dict):
            self.read.add(name)
            return part
        return _WatchedPart(part, name, self.read)

    def touches(self, spoiled: set[str]) -> bool:
        """Whether something was read that ``spoiled``, of groups and full keys, is about."""
        wholly = {key.partition(".")[0] for key in self.read}
        return any(key in self.read or key.partition(".")[0] in self.read or key in wholly for key in spoiled)


class _WatchedPart:
    def __init__(self, part: Any, name: str, read: set[str]) -> None:
        self._part, self._name, self._read = part, name, read

    def __getattr__(self, key: str) -> Any:
        schema = type(self._part)
        own = key in schema.model_fields or key in schema.__class_vars__
        self._read.add(f"{self._name}.{key}" if own else self._name)
        return getattr(self._part, key)
