"""Records as the history of a Weights & Biases run: offline in the run folder's ``wandb/``, or at the service."""

from __future__ import annotations

import hashlib
from typing import Any

import wandb

from accel_cli.config.schema.tracking import WandB as Config
from accel_cli.tracking.guarded import Guarded
from accel_cli.tracking.records import AXES, scalars, settings


class WandB(Guarded):
    """``train/loss``, ``validation/accuracy``, ... over ``step``; the settings as config, ``summary/...`` at the end.

    ``wandb sync`` sends what was written offline. A resumed run has the same id, so that it goes on in the same run.
    """

    def start(self, config: Config) -> None:
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
        self._run = wandb.init(
            project=config.project,
            name=self.folder.name,
            id=hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16],
            dir=str(self.folder),
            mode=config.mode,
            resume="allow",
            config=settings(self.folder),
            settings=quiet,
        )
        # An axis of our own: W&B's step never goes back, and a rollback or a resume does.
        self._run.define_metric("*", step_metric="step")

    def write(self, record: dict[str, Any]) -> None:
        axes = {key: record[key] for key in AXES - {"kind"} if record.get(key) is not None}
        self._run.log({**axes, **dict(scalars(record))})

    def end(self, numbers: dict[str, float]) -> None:
        self._run.summary.update(numbers)
        self._run.finish(exit_code=0 if numbers else 1)
