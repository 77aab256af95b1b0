import io
from typing import Any

from rich.console import Console
from run_builder import settings, summary

from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.summary_panel import panel, panel_text


def test_says_result_time_speed_and_what_next() -> None:
    text = panel_text(summary(), settings(), run="runs/20260712-digits")
    for said in (
        "Completed after 14.2 s",
        "test accuracy 0.9733 · best validation accuracy 0.9812 at step 900",
        "mlp · digits · 64,000 samples in 1,000 steps",
        "6,400 samples per second · median step 9.8 ms",
        "stopping=early",
        "accel report runs/20260712-digits",
    ):
        assert said in text, said
    assert "accel resume" not in text
    assert text.index("backward") < text.index("forward") < text.index("checkpoint")
    bars = {line.split()[-3]: line.count("#") for line in text.splitlines() if "#" in line}
    assert bars["backward"] == round(0.41 * 24)


def test_a_failure_says_where_and_how_to_go_on() -> None:
    error = {"rank": 1, "step": 7, "type": "ValueError", "message": "no", "try": "a=1"}
    text = panel_text(summary(status="failed", error=error, advice=[]), settings(), run="runs/my run")
    assert "ValueError: no (rank 1, step 7)" in text
    assert "accel resume 'runs/my run'" in text


def test_rich_shows_the_same_words_and_takes_no_markup_from_a_run() -> None:
    said: dict[str, Any] = summary(advice=[{"finding": "[bold]odd[/nothing]", "evidence": "x", "override": "a=[1]"}])
    out = io.StringIO()
    Console(file=out, width=150).print(panel(said, settings(), run="runs/[red]x"))
    for line in ("[bold]odd[/nothing]: x", "a=[1]", "runs/[red]x", "where the time went", "█"):
        assert line in out.getvalue(), line


def test_of_an_empty_run(tmp_path: Any) -> None:
    assert "killed" in panel_text(RunFolder(tmp_path).summary, {})
    assert "killed" in panel_text({}, {})
