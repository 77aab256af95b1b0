"""Records as metrics of an MLflow run: in the run folder's ``mlflow/``, or at a tracking server."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from accel_cli.config.schema.tracking import MLflow as Config
from accel_cli.tracking.guarded import Guarded
from accel_cli.tracking.records import scalars, settings

PARAMS_AT_ONCE, PARAM_LENGTH = 100, 500
"""What every tracking server takes."""


class MLflow(Guarded):
    """``train/loss``, ``validation/accuracy``, ... over steps; the settings as parameters, ``summary/...`` at the end.

    A resumed run goes on in the same MLflow run, whose id is kept in ``mlflow-run.txt`` of the run folder.
    """

    def start(self, config: Config) -> None:
        # MLflow asks for this word since its file store gets no new features; it is the one store that needs no
        # database, no migration (13 s, measured) and no server.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=config.uri or (self.folder / "mlflow").resolve().as_uri())
        kept = self.folder / "mlflow-run.txt"
        if kept.exists():
            self._run = kept.read_text().strip()
            self._client.set_terminated(self._run, "RUNNING")
            return
        found = self._client.get_experiment_by_name(config.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(config.experiment)
        self._run = self._client.create_run(experiment, run_name=self.folder.name).info.run_id
        kept.write_text(self._run + "\n")
        params = [Param(key, value[:PARAM_LENGTH]) for key, value in settings(self.folder).items()]
        for first in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._run, params=params[first : first + PARAMS_AT_ONCE])
        self._client.log_batch(self._run, tags=[RunTag("accel.folder", str(self.folder.resolve()))])

    def write(self, record: dict[str, Any]) -> None:
        self._log(dict(scalars(record)), record["step"])

    def end(self, numbers: dict[str, float]) -> None:
        self._log(numbers, self.step)
        self._client.set_terminated(self._run, "FINISHED" if numbers else "KILLED")

    def _log(self, numbers: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        # Databases behind a server have no column for NaN: what is missing there is in metrics.jsonl.
        kept = [Metric(name, value, now, step) for name, value in numbers.items() if math.isfinite(value)]
        self._client.log_batch(self._run, metrics=kept)
