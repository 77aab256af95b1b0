import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from page_reader import ATTACK, Page, reaches_out
from run_builder import records, settings, summary

from accel_cli.analysis.report import write_report
from accel_cli.errors import ConfigError, ResourceError


def read(*runs: Path) -> Page:
    return Page(write_report(list(runs), runs[0].parent / "report.html").read_text())


def test_says_the_numbers_of_one_run(build_run: Any) -> None:
    page = read(build_run())
    for said in (
        "Completed", "0.9733", "0.9812", "at step 900", "64,000", "14.2 s", "10.0 s in steps", "6,400", "9.8 ms",
        "85,002", "774 MiB", "41%", "stopping=early", "this processor has no bf16 units", "precision=fp32",
        "accel train precision=auto data=digits", "0f3c1e", "learning_rate: 0.003", "loss (log)", "Validation accuracy",
    ):  # fmt: skip
        assert said in page.words, said


def test_is_one_file(build_run: Any) -> None:
    read(build_run(), build_run("other", settings=settings(precision="bf16")))
    path = build_run("third").parent / "report.html"
    assert not reaches_out(path)
    text = path.read_text()
    assert not re.search(r"https?:|@import|url\(", text)


def test_escapes_what_a_run_says(build_run: Any) -> None:
    error = {"rank": 0, "step": 3, "type": ATTACK, "message": ATTACK, "try": ATTACK}
    folder = build_run(
        "evil <script>alert(1)<&script>",
        settings=settings(data=ATTACK),
        summary=summary(
            status="failed", device=ATTACK, error=error, advice=[{"finding": ATTACK, "override": ATTACK}],
            metric={"name": ATTACK, "mode": "max", "value": ATTACK, "best": 1, "best_step": ATTACK},
        ),
        records=[*records(), {"kind": "evaluation", "step": 1, ATTACK: 0.5}],
    )  # fmt: skip
    for name in ("environment.json", "decisions.json"):
        (folder / name).write_text('{"<script>alert(1)</script>": "<script>alert(1)</script>"}')
    (folder / "command.txt").write_text(ATTACK)
    page = read(folder, build_run("good"))
    assert page.tags.count("script") == 1
    assert "evil <script>alert(1)<&script>" in page.words
    assert read(folder).tags.count("script") == 1


def test_several_runs_show_what_differs_and_whether_work_was_equal(build_run: Any) -> None:
    one = build_run("a")
    two = build_run(
        "b", settings=settings(precision="bf16"), summary=summary(precision="bf16", samples_per_second=12800.0)
    )
    page = read(one, two)
    assert "Equal work" in page.words
    assert "12,800 (2x)" in page.words
    assert "precision=bf16" in page.words
    assert page.words.index("run.yaml of a") > page.words.index("bf16")

    three = build_run("c", settings=settings(train__global_batch=128), summary=summary(global_batch=128))
    page = read(one, three)
    assert "Not equal work" in page.words
    assert "global_batch: 64 against 128" in page.words


def test_failure_is_shown(build_run: Any) -> None:
    error = {"rank": 1, "step": 312, "type": "RuntimeError", "message": "shapes do not fit", "try": "model.width=784"}
    page = read(build_run(summary=summary(status="failed", error=error, advice=[])))
    for said in ("Failed", "RuntimeError · rank 1 · step 312", "shapes do not fit", "model.width=784", "accel resume"):
        assert said in page.words, said


def test_a_page_comes_of_anything(build_run: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    killed = build_run("killed", summary=None)
    strange = build_run("strange", summary={"status": 7, "metric": 3, "time_share": {"data": "x"}, "advice": [1]})
    odd = [{"kind": "train", "step": "one", "loss": None}, {"kind": "train", "step": 1, "loss": float("nan")}]
    diverged = build_run("diverged", summary=summary(status="diverged", loss=float("nan")), records=odd)
    page = read(killed, empty, strange, diverged)
    assert "summary.json is missing" in page.words
    assert "Diverged" in read(diverged).words
    assert "No summary: still running, or killed" in read(empty).words
    assert "no records to draw" in read(empty).words


def test_refuses_what_is_no_run(tmp_path: Path, build_run: Any) -> None:
    with pytest.raises(ConfigError, match="no such run folder"):
        write_report([tmp_path / "absent"], tmp_path / "report.html")
    with pytest.raises(ConfigError, match="names no run"):
        write_report([], tmp_path / "report.html")
    run = build_run()
    with pytest.raises(ResourceError, match="cannot write"):
        write_report([run], run / "summary.json" / "report.html")


def test_needs_no_torch() -> None:
    modules = "advice, chart, markdown, report, run_folder, study_page, summary_panel"
    code = f"import sys; from accel_cli.analysis import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
