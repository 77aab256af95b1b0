"""A course of learning rate and momentum as a picture; needs matplotlib."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from accel_cli.cli.schedule_course import Course
from accel_cli.errors import ConfigError, Problem

INCHES = (8.0, 4.5)
DOTS = 150
"""To the inch, where the file holds dots."""


def draw(course: Course, path: Path) -> None:
    """Write the picture; its format follows from the name. Raises ConfigError where that cannot be."""
    follows = course.run.schedule.momentum is not None
    figure = Figure(figsize=INCHES, layout="constrained")
    panels = figure.subplots(2 if follows else 1, 1, sharex=True, squeeze=False, height_ratios=[2, 1][: 1 + follows])
    steps = course.sampled()
    across = steps if course.is_known else [100 * step / course.steps for step in steps]
    rate = panels[0][0]
    rate.plot(across, [course.learning_rate(step) for step in steps], color="tab:blue", drawstyle="steps-post")
    rate.set(title=f"schedule={course.run.schedule.option}", ylabel="learning rate")
    rate.set_ylim(bottom=0)
    if course.warmup:
        end = course.warmup if course.is_known else 100 * course.warmup / course.steps
        rate.axvspan(0, min(end, across[-1]), color="tab:orange", alpha=0.15, label="warm-up")
        rate.legend(frameon=False)
    if follows:
        panels[1][0].plot(across, [course.momentum(step) for step in steps], color="tab:green", drawstyle="steps-post")
        panels[1][0].set(ylabel="momentum")
    panels[-1][0].set(xlabel="step" if course.is_known else "share of the run in percent")
    panels[-1][0].set_xlim(0, across[-1] or 1)
    for row in panels:
        row[0].grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=DOTS)
    except ValueError:
        formats = ", ".join(f".{name}" for name in sorted(figure.canvas.get_supported_filetypes()))
        raise ConfigError(Problem(f"--plot {path}", f"matplotlib writes {formats}", "name it schedule.png")) from None
    except OSError as error:
        why = f"cannot be written: {error.strerror or error}"
        raise ConfigError(Problem(f"--plot {path}", why, "name another file")) from None
