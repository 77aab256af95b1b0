"""Read a run folder as it is, also one that a killed process left half written."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from accel_cli.analysis.reading import Reading, Record, read_decisions, read_lines, read_object, read_text
from accel_cli.analysis.wording import TIME_PARTS, as_number, is_finite
from accel_cli.config.tree import flatten, read_yaml
from accel_cli.errors import ConfigError

SUMMARY_KEYS = (
    "status", "exit_code", "error", "steps", "epochs", "samples", "global_batch", "world_size", "device", "strategy",
    "precision", "parameters", "parameters_trained", "metric", "loss", "attempts", "lost_steps", "train_seconds",
    "wall_seconds", "first_step_seconds", "time_to_target_seconds", "samples_per_second", "step_milliseconds",
    "utilisation", "time_share", "peak_memory_bytes", "communication_bytes", "one_off_seconds", "model_bytes", "advice",
)  # fmt: skip
NESTED = {
    "error": ("rank", "step", "type", "message", "try"),
    "metric": ("name", "mode", "value", "best", "best_step"),
    "step_milliseconds": ("median", "p95"),
    "time_share": TIME_PARTS,
    "peak_memory_bytes": ("device", "host"),
    "one_off_seconds": ("import", "prepare", "compile", "checkpoint_load", "compression"),
}
BOOKKEEPING = {"kind", "step", "epoch", "samples", "seconds", "learning_rate", "samples_per_second"}
"""Keys of an evaluation record that are no metrics."""


class RunFolder:
    """A run folder (design, section 6). Files are read when first asked for; nothing here raises for a bad file.

    ``notes`` says in words what is missing or damaged. A summary that is missing is filled from the last record of
    metrics.jsonl as far as that goes; its ``status`` is then None.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        return self.path.name or self.path.resolve().name

    @property
    def has_summary(self) -> bool:
        return bool(self._summary.value)

    @cached_property
    def summary(self) -> Record:
        """Every key of the contract, None where the run did not say."""
        said = self._summary.value or _summary_of(self.metrics)
        whole = dict.fromkeys(SUMMARY_KEYS) | said
        for key, inner in NESTED.items():
            value = whole[key]
            whole[key] = dict.fromkeys(inner) | value if isinstance(value, dict) else dict.fromkeys(inner)
        whole["advice"] = [row for row in whole["advice"] or () if isinstance(row, dict)]
        return whole

    @property
    def metrics(self) -> list[Record]:
        """All records, in order."""
        return self._metrics.value

    @property
    def training(self) -> list[Record]:
        return [record for record in self.metrics if record.get("kind") == "train"]

    @property
    def evaluations(self) -> list[Record]:
        return [record for record in self.metrics if record.get("kind") == "evaluation"]

    @property
    def evaluation_metrics(self) -> list[str]:
        """Names with at least one number, the run's own metric first."""
        names = {
            key: None
            for record in self.evaluations
            for key, value in record.items()
            if key not in BOOKKEEPING and as_number(value) is not None
        }
        own = self.summary["metric"]["name"]
        return sorted(names, key=lambda name: name not in (own, f"validation_{own}"))

    @property
    def settings(self) -> Record:
        """run.yaml as a tree."""
        return self._settings.value

    @cached_property
    def flat_settings(self) -> dict[str, str]:
        """``train.epochs`` -> ``3``; a group's ``option`` stands under the group's own name."""
        return dict(flatten(self.settings))

    @cached_property
    def settings_text(self) -> str:
        return read_text(self.path / "run.yaml").value

    @property
    def decisions(self) -> list[Record]:
        return self._decisions.value

    @property
    def exports(self) -> list[Record]:
        """The reports of what the model was exported to, by format."""
        return [reading.value for reading in self._exports if reading.value]

    @property
    def environment(self) -> Record:
        return self._environment.value

    @cached_property
    def command(self) -> str:
        return self._command.value.strip()

    @property
    def notes(self) -> tuple[str, ...]:
        readings: tuple[Reading[Any], ...] = (
            self._summary, self._metrics, self._settings, self._decisions, self._environment, self._command,
            *self._exports,
        )  # fmt: skip
        return tuple(note for reading in readings for note in reading.notes)

    @cached_property
    def _summary(self) -> Reading[Record]:
        return read_object(self.path / "summary.json")

    @cached_property
    def _metrics(self) -> Reading[list[Record]]:
        return read_lines(self.path / "metrics.jsonl")

    @cached_property
    def _settings(self) -> Reading[Record]:
        path = self.path / "run.yaml"
        if not path.exists():
            return Reading({}, ("run.yaml is missing",))
        try:
            return Reading(read_yaml(path))
        except ConfigError as error:
            return Reading({}, tuple(f"run.yaml: {problem.why}" for problem in error.problems))

    @cached_property
    def _decisions(self) -> Reading[list[Record]]:
        return read_decisions(self.path / "decisions.json")

    @cached_property
    def _environment(self) -> Reading[Record]:
        return read_object(self.path / "environment.json")

    @cached_property
    def _exports(self) -> list[Reading[Record]]:
        return [read_object(path) for path in sorted(self.path.glob("export/[!.]*/report.json"))]

    @cached_property
    def _command(self) -> Reading[str]:
        return read_text(self.path / "command.txt")


def _summary_of(records: list[Record]) -> Record:
    """How far the records say that the run came."""
    known: Record = {}
    for record in records:
        for key, value in (
            ("steps", record.get("step")),
            ("epochs", record.get("epoch")),
            ("samples", record.get("samples")),
            ("wall_seconds", record.get("seconds")),
            ("samples_per_second", record.get("samples_per_second")),
            ("loss", record.get("loss") if record.get("kind") == "train" else None),
        ):
            if is_finite(value):
                known[key] = value
    return known
