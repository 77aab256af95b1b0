import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_reader import ATTACK, Page, reaches_out
from run_builder import records, settings, summary, write_run
from study_builder import STUDIES, ledger, point, ratio, row, sweep, tune, write_runs, write_study

from accel_cli.analysis.report import markdown_text, page_text, write_report
from accel_cli.errors import ConfigError

SAID = {
    "ledger": (
        "All together, a step takes 0.550 [0.539, 0.561] times",
        "2 help, 1 hurts, 1 has no effect, 1 is undecided, 1 failed and 1 was refused",
        "loader=memory helps most: 0.612 [0.600, 0.624]",
        "precision=bf16 changes accuracy by -0.011 [-0.015, -0.007], beyond noise",
        "the baseline against itself: 1.001",
        "mat1 and mat2 shapes cannot be multiplied",
        "launch.processes=1",
        "after step 8,400",
        "compile 15.6 s",
        "1 of 3 never got there",
        "unequal work: each sample is changed before it is used",
        "all but precision=bf16",
        "accel train data=digits loader=memory precision=bf16 compile=full",
    ),
    "sweep": (
        "Sweep of 24 points",
        "The highest accuracy is 0.9855",
        "20 completed, 1 failed, 1 out of memory, 1 refused, 1 timed out",
        "ZeroDivisionError: division by zero in my_pkg/nets.py, line 31",
        "killed by the system for memory",
        "needs a data set of at least 200 samples",
        "took longer than",
        "on the front",
        "accel train data=digits optimizer.learning_rate=0.003 train.global_batch=64 loader=memory",
    ),
    "tune": (
        "loader=memory compile=full: a step takes 0.430 [0.421, 0.439] times as long as the baseline's",
        "It reaches the target in 0.470 [0.446, 0.493] times the baseline's time",
        "It changes validation accuracy by -0.0004 [-0.0024, +0.0016], of 0.003 allowed",
        "2 settings was left out in turn: 2 help",
        "this processor has no fp16 units",
        "took 8 min 24 s",
        "accel train model=custom loader=memory compile=full",
    ),
    "bench": ("[1.069, 1.091] times as long as the baseline's: slower than allowed, beyond noise", "5% is allowed"),
}  # fmt: skip
ON_PAGE_ONLY = {
    "ledger": ("Accuracy against time", "Each alone, against the baseline", "Curves of 3 of its runs", "0f3c1e"),
    "sweep": ("Accuracy over optimizer.learning_rate", "Accuracy over train.global_batch", "Curves of 8 of its runs"),
    "tune": ("round 12", "2 of 9: 1 chosen, 1 finalist", "Validation accuracy against time"),
    "bench": ("the margin within which a difference counts as none",),
}

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """``build(kind, content)`` writes a study's folder; ``runs=True`` the runs that it names too."""

    def written(kind: str, content: Any = None, *, runs: bool = False, name: str = "study") -> Path:
        folder = write_study(tmp_path / name, kind, STUDIES[kind]() if content is None else content)
        if runs:
            write_runs(folder, kind)
        return folder

    return written


def read(folder: Path) -> Page:
    return Page(page_text([folder]))


@pytest.mark.parametrize("kind", STUDIES)
def test_page_and_markdown_say_what_was_found(kind: str, build: Build) -> None:
    folder = build(kind, runs=True)
    page, text = read(folder), markdown_text([folder])
    for said in (*SAID[kind], *ON_PAGE_ONLY[kind]):
        assert said in page.words, said
    for said in SAID[kind]:
        assert said in text, said
    assert text.startswith("### ")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    assert all(line.endswith("|") for line in rows)


@pytest.mark.parametrize("kind", STUDIES)
def test_is_one_file_that_asks_for_nothing(kind: str, build: Build) -> None:
    folder = build(kind, runs=True)
    assert not reaches_out(write_report([folder], folder / "report.html"))


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@pytest.mark.parametrize("kind", STUDIES)
def test_hostile_text_stays_text(kind: str, build: Build) -> None:
    content = STUDIES[kind]()
    for path in list(leaves(content)):
        at = content
        for key in path[:-1]:
            at = at[key]
        if isinstance(at[path[-1]], str) and path[-1] not in ("form", "kind"):
            at[path[-1]] = ATTACK + at[path[-1]]
    page, text = read(folder := build(kind, content)), markdown_text([folder])
    assert page.tags.count("script") == 1
    outside_code = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script", outside_code)


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize(
    "garbage", [None, "x", -1, 0, float("nan"), float("inf"), [], {}, [None], {"a": []}, True, 1e308]
)
def test_a_page_comes_of_anything(kind: str, garbage: Any, build: Build) -> None:
    whole, draws = STUDIES[kind](), random.Random(0)
    paths = list(leaves(whole))
    tops = [path for path in paths if len(path) == 1]
    for chosen in (*([path] for path in tops), *(draws.sample(paths, 6) for _ in range(8))):
        content = copy.deepcopy(whole)
        for path in sorted(chosen, key=len, reverse=True):
            put(content, path, copy.deepcopy(garbage))
        folder = build(kind, content)
        assert "accel report" in read(folder).words
        assert markdown_text([folder]).startswith("###")


@pytest.mark.parametrize("kind", STUDIES)
@pytest.mark.parametrize("text", ["", "{", '{"rows": [', "[]", "null", '"x"', "[[[[", "{}"])
def test_a_damaged_file_is_a_note(kind: str, text: str, build: Build) -> None:
    folder = build(kind, text)
    (folder / "environment.json").unlink()
    page = read(folder)
    assert "environment.json is missing" in page.words
    assert text == "{}" or f"{kind}.json is damaged" in page.words
    assert text == "{}" or f"{kind}.json is damaged" in markdown_text([folder])


def test_a_ledger_of_one_row_without_intervals(build: Build) -> None:
    first = row("precision=bf16", found=None, status="measured") | {"ratio": {"value": 1.2, "low": None, "high": None}}
    folder = build("ledger", ledger(rows=[first], floor={"value": None, "low": None, "high": None}, status="running"))
    page = read(folder)
    assert "1.200 [?]" in page.words
    assert "Not ended: still running, or killed" in page.words
    assert "the noise floor is not known" in page.words
    assert "Of 1 technique alone, 1 not judged" in page.words


def test_an_undecided_whole_is_no_headline(build: Build) -> None:
    rows = [row("a=1", found=0.98, verdict="cannot tell"), row("a=1 + b=2", "together", 0.97, "cannot tell")]
    assert (
        "Whether all together help cannot be told: 0.970 [0.951, 0.989]"
        in read(build("ledger", ledger(rows=rows))).words
    )


def test_a_ledger_without_whole_runs_has_no_metric(build: Build) -> None:
    rows = [row("loader=memory", found=0.6, verdict="helps"), row("precision=bf16", found=1.0, verdict="no effect")]
    content = ledger(rows=rows, target=None)
    content["baseline"] |= {"metric": None, "seconds_to_target": None, "run_seconds": None, "runs": []}
    page = read(build("ledger", content))
    assert "against time" not in page.words
    assert "metric's change" not in page.words
    assert "beyond noise" not in page.words


@pytest.mark.parametrize("margin", [-1, 0, 1, 1e9])
def test_a_strange_margin_is_drawn(margin: float, build: Build) -> None:
    assert "100%" in page_text([build("bench", STUDIES["bench"](max_slowdown=margin))])


def test_a_wide_ratio_and_long_words_fit(build: Build) -> None:
    long = "loader=workers " + " ".join(f"optimizer.groups.{'bias' * 9}.{k}=0.1" for k in range(9))
    page = read(build("ledger", ledger(rows=[row(long, found=400.0, verdict="hurts"), row("a=1", found=0.001)])))
    places = [
        float(value.rstrip("%"))
        for name, value in page.attributes
        if name in ("cx", "x1", "x2") and value and "%" in value
    ]
    assert places
    assert all(0 <= place <= 100 for place in places)
    assert "›" in page.words
    assert "‹" in page.words


def test_a_sweep_over_seeds_shows_their_spread(build: Build) -> None:
    points = [
        point(2 * place + seed, [f"loader={loader}", f"train.seed={seed}"], accuracy + 0.01 * seed, seconds + seed)
        for place, (loader, accuracy, seconds) in enumerate((("memory", 0.96, 10.0), ("workers", 0.95, 20.0)))
        for seed in range(2)
    ]
    page = read(build("sweep", sweep(points=points, axes={"loader": ["memory", "workers"], "train.seed": ["0", "1"]})))
    assert (
        "The highest accuracy on average is 0.965, 0.96 to 0.97 over 2 seeds: loader=memory, after 10.5 s" in page.words
    )
    assert "Bars: lowest to highest over seeds" in page.words
    assert ("class", "bars") in page.attributes
    assert "Accuracy over train.seed" not in page.words
    alone = read(build("sweep", name="alone"))
    assert "how much is chance is not known" in alone.words
    assert ("class", "bars") not in alone.attributes


def test_a_sweep_that_minimises(build: Build) -> None:
    points = [
        {
            **point(k, [f"model.width={w}"], None, None, status="completed"),
            "metric": {"name": "loss", "mode": "min", "best": b},
        }
        for k, (w, b) in enumerate(((64, 0.3), (128, 0.1), (256, 0.2)))
    ]
    page = read(
        build(
            "sweep", sweep(points=points, axes={"model.width": [64, 128, 256]}, metric={"name": "loss", "mode": "min"})
        )
    )
    assert "The lowest loss is 0.1: model.width=128 (point 1)" in page.words


def test_a_sweep_without_a_metric_names_the_quickest(build: Build) -> None:
    points = [point(k, [f"model.width={k}"], None, 10.0 - k, status="completed") for k in range(3)]
    page = read(build("sweep", sweep(points=points, metric=None)))
    assert "The quickest: model.width=2 (point 2), 8.0 s; no metric was measured" in page.words


def test_a_tune_that_has_chosen_nothing_yet(build: Build) -> None:
    page = read(build("tune", tune(chosen=None, bought=[], finalists=[], status="interrupted")))
    assert "Nothing is chosen yet, of 9 candidates" in page.words
    assert "the same command goes on with it" in page.words


def test_a_run_outside_the_folder_is_not_read(build: Build, tmp_path: Path) -> None:
    write_run(tmp_path / "secret", settings(), summary(), records())
    content = ledger(rows=[row("loader=memory", found=0.6, verdict="helps", runs=["../secret"])])
    assert "Curves" not in read(build("ledger", content)).words


def test_one_study_at_a_time(build: Build, build_run: Any) -> None:
    one, two, run = build("ledger", name="one"), build("sweep", name="two"), build_run()
    with pytest.raises(ConfigError, match="is a ledger, which has a page of its own") as caught:
        page_text([one, two, run])
    assert f"accel report {one}; accel report {two}; accel report {run}" in str(caught.value.problems[0].fix)


def test_the_command(build: Build, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from accel_cli.cli.main import main

    folder = build("ledger")
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert main(["report", str(folder / "ledger.json"), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("### Ledger of 7 techniques\n\n**All together")
    assert main(["report", str(folder), "--markdown", "--output", str(tmp_path / "found.md")]) == 0
    assert (tmp_path / "found.md").read_text().startswith("### Ledger")
    capsys.readouterr()
    assert main(["report", str(folder), "--markdown", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["markdown"].startswith("### Ledger")


def test_markdown_of_runs(build_run: Any) -> None:
    one, two = build_run("a"), build_run("b", settings=settings(precision="bf16"), summary=summary(train_seconds=5.0))
    text = markdown_text([one, two])
    assert "The quickest in steps: b, 5.0 s; the slowest took 10.0 s." in text
    assert "precision=bf16" in text
    assert "accel train precision=auto data=digits" in text
    assert "stopping=early" in markdown_text([one])
    assert "Missing from this report" in markdown_text([build_run("killed", summary=None)])


def test_ratio_of_the_builder_is_the_contract() -> None:
    assert set(ratio(1.0)) == {"value", "low", "high"}
