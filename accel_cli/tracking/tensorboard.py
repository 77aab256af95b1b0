"""Records as TensorBoard scalars, in the run folder's ``tensorboard/``."""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard import SummaryWriter

from accel_cli.config.schema.tracking import TensorBoard as Config
from accel_cli.tracking.guarded import Guarded
from accel_cli.tracking.records import scalars, settings


class TensorBoard(Guarded):
    """``train/loss``, ``validation/accuracy``, ... over steps; the settings as text, ``summary/...`` at the end."""

    def start(self, config: Config) -> None:
        folder = str(self.folder / "tensorboard")
        self._writer = SummaryWriter(folder, flush_secs=max(1, round(config.flush_seconds)))
        if said := settings(self.folder):
            self._writer.add_text("settings", "\n".join(f"    {key}={value}" for key, value in said.items()))

    def write(self, record: dict[str, Any]) -> None:
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, global_step=record["step"])

    def end(self, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, global_step=self.step)
        self._writer.close()
