"""accel show --schedule: the numbers that a run would have, as numbers, in a terminal and as a picture."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_cli.cli import show
from accel_cli.cli.main import main
from accel_cli.config.parts import implementation
from accel_cli.config.plan import plan

THOUSAND = ["train.epochs=null", "train.steps=1000"]


def numbers(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["show", "--schedule", "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def drawing(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["show", "--schedule", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_numbers_are_the_schedules_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train.epochs=null", "train.steps=120", "schedule=onecycle", "schedule.momentum=[0.8,0.95]"]
    found = numbers(capsys, *words, "schedule.warmup=0.1", "optimizer.learning_rate=0.02")
    run = plan([*words, "schedule.warmup=0.1"]).run
    made = implementation("schedule", run.schedule)(run.schedule)
    assert (found["steps"], found["warmup_steps"], found["full_learning_rate"]) == (120, 12, 0.02)
    assert [point["step"] for point in found["points"]] == list(range(120))
    assert [point["learning_rate"] for point in found["points"]] == [0.02 * made(step, 120) for step in range(120)]
    assert [point["momentum"] for point in found["points"]] == [made.momentum(step, 120) for step in range(120)]


def test_a_long_run_is_sampled_from_its_first_step_to_its_last(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, "train.epochs=null", "train.steps=5000000")
    steps = [point["step"] for point in found["points"]]
    assert (len(steps), steps[0], steps[-1]) == (1000, 0, 4_999_999)
    assert steps == sorted(set(steps))
    assert "momentum" not in found["points"][0]


@pytest.mark.parametrize(
    "words",
    [
        ["data=digits", "data.validation_share=0.13"],
        ["data=synthetic", "data.samples=1003", "data.test_share=0.2"],
        ["data=synthetic", "data.samples=11"],
    ],
)
def test_a_size_that_is_known_without_reading_is_the_datas(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = plan([*words, "train.epochs=3", "train.global_batch=10"]).run
    size = implementation("data", run.data)(run.data, run.train.seed).describe().train_samples
    assert run.data.train_samples == size
    assert numbers(capsys, *words, "train.epochs=3", "train.global_batch=10")["steps"] == -(-3 * size // 10)


def test_samples_state_the_steps_of_any_data(capsys: pytest.CaptureFixture[str]) -> None:
    text = ["data=stdlib_text", "model=gpt"]
    assert numbers(capsys, *text, "train.epochs=null", "train.samples=6401")["steps"] == 101


def test_a_length_that_only_the_data_can_tell_is_drawn_over_its_share(capsys: pytest.CaptureFixture[str]) -> None:
    text = ["data=stdlib_text", "model=gpt"]
    words = [*text, "schedule.warmup=0.25"]
    found = numbers(capsys, *words)
    assert found["steps"] is None
    assert found["points"][250] == {"share": 0.25, "learning_rate": pytest.approx(0.001)}
    assert "only the data can tell" in found["notes"][0]
    lines = drawing(capsys, *words)
    assert lines[0].endswith("over the share of the run")
    assert {"0%", "20%", "100%"} <= set(lines[18].split())
    assert main(["show", "--schedule", *text, "schedule.warmup=500"]) == 2
    assert "train.steps=1000 train.epochs=null" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80, 133])
def test_the_drawing_fills_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = drawing(capsys, *THOUSAND, "schedule=constant", "schedule.warmup=0.5")
    rows = lines[1:17]
    assert [row.split("┤")[0].strip() for row in rows if "┤" in row] == ["0.001", "0.00075", "0.0005", "0.00025"]
    assert {len(row) for row in rows} == {width}
    columns = width - rows[0].index("┤") - 1
    assert rows[0].count("█") == pytest.approx(columns / 2, abs=1)
    assert rows[-1].count("█") == pytest.approx(columns * (1 - 0.5 / 16), abs=1)
    assert lines[17].count("━") == pytest.approx(columns / 2, abs=5)
    assert lines[18].split()[:1] == ["0"]
    assert lines[18].split()[-1] == "1,000"
    assert len(lines[18]) <= width
    assert "warm-up: 500 steps (━)" in lines
    assert "\033" not in "".join(lines)


def test_a_rate_above_zero_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawing(capsys, *THOUSAND, "schedule=multistep", "schedule.gamma=0.001")
    assert lines[16].endswith("▁")


def test_a_momentum_that_follows_has_a_drawing_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = drawing(capsys, *THOUSAND, "optimizer=sgd", "schedule.momentum=[0.8,0.95]")
    top, floor = (
        next(i for i, line in enumerate(lines) if line.strip().startswith(label)) for label in ("0.95", "0.8")
    )
    assert lines[top - 1] == "momentum"
    assert lines[top].rstrip().endswith("█")
    assert lines[top].count("█") < lines[floor - 1].count("█")
    assert "schedule.momentum takes the place of optimizer.momentum=0.9" in lines


def test_a_pipe_that_knows_ascii_only_gets_ascii(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accel_cli.cli.schedule_plot.glyphs", lambda: show.schedule_plot.ASCII)
    assert "\n".join(drawing(capsys, *THOUSAND, "schedule.warmup=0.1")).isascii()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["schedule=plateau"], "drops follow the validation metric"),
        (
            ["train.learning_rate_scaling=sqrt", "train.base_batch=16", "train.global_batch=64"],
            "full rate 0.002 = optimizer.learning_rate=0.001, scaled by train.learning_rate_scaling=sqrt "
            "from a batch of 16 to 64",
        ),
        (
            ["schedule.warmup=2000"],
            "schedule.warmup=2000: the run has 1000 steps: the full learning rate is never reached",
        ),
        (["optimizer=muon"], "AdamW's part has x 0.05 of this rate"),
    ],
)
def test_what_a_drawing_does_not_show_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(line.startswith(said) for line in drawing(capsys, *THOUSAND, *words))


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, begins in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        words = ["schedule.momentum=[0.8,0.95]", "schedule.warmup=0.1"]
        assert main(["show", "--plot", str(tmp_path / name), *THOUSAND, *words]) == 0
        assert (tmp_path / name).read_bytes().startswith(begins)
        assert capsys.readouterr().out.rstrip().endswith(name)
    for path, why in ((tmp_path / "a.doc", "matplotlib writes"), (tmp_path / "no/a.png", "cannot be written")):
        assert main(["show", "--plot", str(path)]) == 2
        assert why in capsys.readouterr().err
    monkeypatch.setattr(show, "has_package", lambda name: False)
    assert main(["show", "--plot", str(tmp_path / "b.png")]) == 2
    assert "pip install 'accel-cli[matplotlib]'" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


def test_a_function_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawn_rates.py").write_text(
        "def half():\n    return lambda step, steps: 0.5\n\n\ndef broken():\n    return lambda step, steps: 1 / step\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["schedule=custom", "schedule.factory=drawn_rates:half"]
    assert main(["show", "--schedule", *words]) == 8
    assert numbers(capsys, *words, "--plugin", "drawn_rates.py")["points"][0]["learning_rate"] == 0.0005
    capsys.readouterr()
    broken = ["schedule=custom", "schedule.factory=drawn_rates:broken", "--plugin", "drawn_rates.py"]
    assert main(["show", "--schedule", *broken]) == 3
    assert "drawn_rates:broken raised ZeroDivisionError" in capsys.readouterr().err
