from pathlib import Path
from typing import Any

from accel_cli.analysis.run_folder import NESTED, SUMMARY_KEYS, RunFolder
from accel_cli.analysis.wording import status


def test_reads_a_whole_folder(build_run: Any) -> None:
    run = RunFolder(build_run())
    assert run.notes == ()
    assert run.has_summary
    assert run.summary["metric"]["value"] == 0.9733
    assert len(run.training) == 200
    assert len(run.evaluations) == 10
    assert run.evaluation_metrics == ["validation_accuracy", "validation_loss"]
    assert run.flat_settings["precision"] == "fp32"
    assert run.flat_settings["optimizer.learning_rate"] == "0.003"
    assert run.flat_settings["train.steps"] == "null"
    assert run.decisions[0]["key"] == "precision"
    assert run.environment["git"]["commit"] == "0f3c1e"
    assert run.command == "accel train precision=auto data=digits"


def test_killed_before_the_summary(build_run: Any) -> None:
    folder = build_run(summary=None)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 1005, "lo')
    run = RunFolder(folder)
    assert not run.has_summary
    assert run.notes == ("summary.json is missing", "metrics.jsonl ends in half a line, which is left out")
    assert run.summary["status"] is None
    assert "killed" in status(None).words
    assert (run.summary["steps"], run.summary["samples"], run.summary["wall_seconds"]) == (1000, 64_000, 10.0)


def test_every_key_is_there_even_of_an_empty_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert set(run.summary) == set(SUMMARY_KEYS)
    assert all(set(run.summary[key]) == set(inner) for key, inner in NESTED.items())
    assert len(run.notes) == 6
    assert all(note.endswith("is missing") for note in run.notes)


def test_damage_is_named(build_run: Any) -> None:
    folder = build_run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = "\x00\x00"
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "run.yaml").write_text("train: [1, 2")
    (folder / "summary.json").write_text("[" * 100_000)
    (folder / "environment.json").write_bytes(b"\xff\xfe")
    (folder / "decisions.json").write_text('"none"')
    run = RunFolder(folder)
    damaged = ("summary.json", "metrics.jsonl", "run.yaml", "decisions.json", "environment.json")
    assert len(run.notes) == len(damaged)
    assert all(note.startswith(name) for note, name in zip(run.notes, damaged, strict=True))
    assert len(run.metrics) == len(lines) - 1
    assert run.settings == {}


def test_decisions_by_key(build_run: Any) -> None:
    folder = build_run()
    (folder / "decisions.json").write_text('{"loader": {"value": "memory", "why": "it fits"}, "threads": 2}')
    assert RunFolder(folder).decisions == [
        {"key": "loader", "value": "memory", "why": "it fits"},
        {"key": "threads", "value": 2},
    ]
