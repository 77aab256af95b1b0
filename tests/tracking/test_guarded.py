import logging
from pathlib import Path
from typing import Any

import pytest

from accel_cli.config.schema.base import Option
from accel_cli.tracking.guarded import Guarded
from accel_cli.tracking.records import headline, settings


class Failing(Guarded):
    """Fails where it is told to."""

    def start(self, config: Any) -> None:
        self.seen: list[Any] = []
        self._fail("start")

    def write(self, record: dict[str, Any]) -> None:
        self.seen.append(record)
        self._fail("write")

    def end(self, numbers: dict[str, float]) -> None:
        self.seen.append(numbers)
        self._fail("end")

    def _fail(self, place: str) -> None:
        if self.name == place:
            raise OSError("no space left on device")


@pytest.mark.parametrize("place", ["start", "write", "end"])
def test_warns_once_and_is_quiet(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tracker = Failing(Option(option=place), tmp_path)
        for step in range(3):
            tracker.log({"kind": "train", "step": step, "loss": 1.0})
        tracker.close()
        tracker.close()
    (record,) = caplog.records
    assert record.getMessage() == f"tracking={place} stopped, training goes on: OSError: no space left on device"


def test_a_damaged_summary_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "summary.json").write_text('{"metric": ')
    with caplog.at_level(logging.WARNING):
        Failing(Option(option="none"), tmp_path).close()
    assert "training goes on" in caplog.text


def test_what_the_folder_tells(tmp_path: Path) -> None:
    assert settings(tmp_path) == {}
    assert headline(tmp_path) == {}
    (tmp_path / "run.yaml").write_text("optimizer: {option: sgd, learning_rate: 0.1}\naugment: {transforms: {}}\n")
    assert settings(tmp_path) == {"optimizer": "sgd", "optimizer.learning_rate": "0.1", "augment.transforms": "{}"}
    (tmp_path / "summary.json").write_text(
        '{"metric": {"name": "accuracy", "value": 0.5, "best": NaN}, "time_share": {"data": 0.25}, "utilisation": null}'
    )
    assert headline(tmp_path) == {"summary/metric_value": 0.5, "summary/time_share_data": 0.25}
