"""What sets several runs apart: their names, their settings, and whether they did equal work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.wording import NOTHING, number

WORK = ("samples", "global_batch", "parameters", "parameters_trained")
SEED = "train.seed"
PROBLEM = ("data", "model", "task", SEED)
"""Settings that make two runs different problems rather than two ways to solve one."""
FINISHED = {"completed", "target_reached", "stopped_early"}
LABEL_SETTINGS = 3


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """The folders' names; the parent's too where two are the same, and a count where even those are."""
    names = [run.name for run in runs]
    once = Counter(names)
    names = [
        name if once[name] == 1 else f"{run.path.resolve().parent.name}/{name}"
        for name, run in zip(names, runs, strict=True)
    ]
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names


def differing_settings(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Key -> each run's value, for the keys that are not the same in all runs whose run.yaml could be read."""
    readable = [run for run in runs if run.settings]
    keys = dict.fromkeys(key for run in readable for key in run.flat_settings)
    rows = {key: [run.flat_settings.get(key, NOTHING) for run in readable] for key in keys}
    return {
        key: [run.flat_settings.get(key, NOTHING) for run in runs]
        for key, values in rows.items()
        if len(set(values)) > 1
    }


def what_differs(runs: Sequence[RunFolder]) -> list[str]:
    """For each run, the few settings that tell it from the others, as overrides; empty where there are none."""
    rows = differing_settings(runs)
    telling = sorted(rows, key=lambda key: (key.count("."), list(rows).index(key)))[:LABEL_SETTINGS]
    return [
        " ".join(f"{key}={rows[key][place]}" for key in telling if rows[key][place] != NOTHING)
        for place in range(len(runs))
    ]


def _same_seeds(runs: Sequence[RunFolder]) -> bool:
    """Whether each setting was run with the same seeds, so that seeds are repeats rather than a difference."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        rest = sorted((key, value) for key, value in run.flat_settings.items() if key != SEED)
        seeds.setdefault(str(rest), []).append(run.flat_settings.get(SEED, NOTHING))
    return len({tuple(sorted(each)) for each in seeds.values()}) == 1


def unequal_work(runs: Sequence[RunFolder]) -> list[str]:
    """In words, why times and metrics of these runs do not compare one to one; empty for equal work."""
    found = []
    ended = [run.summary["status"] in FINISHED for run in runs]
    unfinished = [name for name, done in zip(labels(runs), ended, strict=True) if not done]
    if unfinished and len(runs) > 1:
        found.append(f"not finished: {', '.join(unfinished)}")
    for key in WORK:
        values = [run.summary[key] for run in runs if run.summary[key] is not None]
        if len(set(map(str, values))) > 1:
            found.append(f"{key}: {' against '.join(dict.fromkeys(map(number, values)))}")
    differing = differing_settings(runs)
    repeats = _same_seeds(runs)
    for key in PROBLEM:
        if key in differing and not (key == SEED and repeats):
            found.append(f"{key}: {' against '.join(dict.fromkeys(differing[key]))}")
    return found
