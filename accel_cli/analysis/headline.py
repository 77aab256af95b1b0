"""The head of a report: status, failure, what is missing, the numbers that matter."""

from __future__ import annotations

from typing import Any

from accel_cli.analysis import wording
from accel_cli.analysis.comparison import unequal_work, what_differs
from accel_cli.analysis.markup import Child, Html, element, join, table
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.sections import Names, Runs, run_key
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name, share


def headline(runs: Runs, names: Names) -> Html:
    return _one_headline(runs[0]) if len(runs) == 1 else _many_headline(runs, names)


def failures(runs: Runs, names: Names) -> Html | None:
    """The first failure of each run that has one."""
    boxes = [_failure(run, name if len(runs) > 1 else "") for run, name in zip(runs, names, strict=True)]
    return join(*boxes) if any(boxes) else None


def missing(runs: Runs, names: Names) -> Html | None:
    notes = [
        element("li", f"{name}: {note}" if len(runs) > 1 else note)
        for run, name in zip(runs, names, strict=True)
        for note in run.notes
    ]
    if not notes:
        return None
    return element("aside", element("strong", "Missing from this report"), element("ul", *notes), class_="box warning")


def _one_headline(run: RunFolder) -> Html:
    said = run.summary
    metric, step = said["metric"], said["step_milliseconds"]
    name = plain_name(metric["name"] or "metric")
    best = f"at step {number(metric['best_step'])}" if metric["best_step"] is not None else ""
    tiles = [
        _tile(f"test {name}", number(metric["value"]), ""),
        _tile(f"best validation {name}", number(metric["best"]), best),
        _tile("wall time", duration(said["wall_seconds"]), f"{duration(said['train_seconds'])} in steps"),
        _tile("samples per second", number(said["samples_per_second"]), f"median step {_milliseconds(step)}"),
    ]
    memory, one_off = said["peak_memory_bytes"], said["one_off_seconds"]
    facts = {
        "samples seen": number(said["samples"]),
        "steps": number(said["steps"]),
        "epochs": number(said["epochs"]),
        "global batch": number(said["global_batch"]),
        "processes": number(said["world_size"]),
        "device": said["device"],
        "strategy": said["strategy"],
        "precision": said["precision"],
        "parameters": number(said["parameters"]),
        "of those trained": _unless_equal(said["parameters_trained"], said["parameters"]),
        "train loss": number(said["loss"]),
        "first step after": duration(said["first_step_seconds"]),
        "time to target": duration(said["time_to_target_seconds"]),
        "of the device's peak": share(said["utilisation"]) if is_finite(said["utilisation"]) else NOTHING,
        "memory, device": wording.size(memory["device"]),
        "memory, host": wording.size(memory["host"]),
        "model size": wording.size(said["model_bytes"]),
        "communication": wording.size(said["communication_bytes"] or None),
        "steps lost to restarts": number(said["lost_steps"]) if said["lost_steps"] else NOTHING,
        **{f"{key.replace('_', ' ')}, once": duration(value) for key, value in one_off.items() if value},
    }
    shown = [
        element("div", element("dt", key), element("dd", str(value)))
        for key, value in facts.items()
        if value not in (NOTHING, None)
    ]
    return join(element("div", *tiles, class_="tiles"), element("dl", *shown, class_="facts"))


def _many_headline(runs: Runs, names: Names) -> Html:
    differences = what_differs(runs)
    equal = not (unequal := unequal_work(runs))
    base = runs[0].summary["samples_per_second"]
    metrics = dict.fromkeys(run.summary["metric"]["name"] for run in runs if run.summary["metric"]["name"])
    name = " or ".join(map(plain_name, metrics)) or "metric"
    header = [
        "run", "status", f"test {name}", "best validation", "samples/s", "wall", "in steps", "samples",
        "global batch", "processes", "device", "strategy", "precision",
    ]  # fmt: skip
    rows: list[list[Child]] = []
    for place, run in enumerate(runs):
        said = run.summary
        speed = said["samples_per_second"]
        ratio = f" ({wording.times(speed / base)})" if place and is_finite(speed) and is_finite(base) and base else ""
        difference = element("div", differences[place], class_="quiet") if differences[place] else None
        rows.append([
            join(run_key(place), element("strong", names[place]), difference),
            _short_status(run),
            number(said["metric"]["value"]),
            number(said["metric"]["best"]),
            number(speed, 3) + ratio,
            duration(said["wall_seconds"]),
            duration(said["train_seconds"]),
            *(number(said[key]) for key in ("samples", "global_batch", "world_size")),
            *(said[key] or NOTHING for key in ("device", "strategy", "precision")),
        ])  # fmt: skip
    if equal:
        work = element(
            "p", "Equal work: the same samples, batch and parameters in every run. Each is one measurement; "
            "small differences in speed or metric may be chance.", class_="quiet",
        )  # fmt: skip
    else:
        points = element("ul", *(element("li", one) for one in unequal))
        heading = element("strong", "Not equal work: times and metrics of these runs do not compare one to one")
        work = element("aside", heading, points, class_="box warning")
    return join(table(header, rows, css="runs"), work)


def _failure(run: RunFolder, name: str) -> Html | None:
    error = run.summary["error"]
    if error["message"] is None and error["type"] is None:
        return None
    where = " · ".join(f"{word} {error[word]}" for word in ("rank", "step") if error[word] is not None)
    return element(
        "aside",
        element("strong", " · ".join(part for part in (name, str(error["type"] or "Error"), where) if part)),
        element("pre", str(error["message"] or "")),
        element("p", "Try ", element("code", str(error["try"]))) if error["try"] else None,
        element("p", f"The whole output is in {run.path}/ranks/", class_="quiet"),
        class_="box bad",
    )


def badge(run: RunFolder) -> Html:
    """The status in words."""
    status = wording.status(run.summary["status"])
    return element("p", element("span", status.words, class_=f"badge {status.tone}"))


def _short_status(run: RunFolder) -> Html:
    name = run.summary["status"]
    words = "no summary" if name is None else plain_name(name)
    return element("span", words, class_=f"badge {wording.status(name).tone}")


def _tile(label: str, value: str, note: str) -> Html | None:
    note = "" if NOTHING in note else note
    inner = (element("span", label), element("b", value), element("small", note))
    return element("div", *inner, class_="tile")


def _milliseconds(step: dict[str, Any]) -> str:
    return f"{number(step['median'], 3)} ms" if is_finite(step["median"]) else NOTHING


def _unless_equal(value: Any, other: Any) -> str:
    return NOTHING if value == other else number(value)
