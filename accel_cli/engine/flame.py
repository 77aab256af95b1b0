"""A flame graph from a trace: where the traced steps' time went, by call and operator."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

TOOLS = {"inferno-flamegraph": (), "flamegraph.pl": ("--countname", "microseconds")}
"""What draws folded stacks, with its arguments: the first that is on the PATH."""
KINDS = ("cpu_op", "python_function", "user_annotation")
STEP = "ProfilerStep#"
"""How torch names the span of a step."""
ADDRESS = re.compile(r" (of \w+ )?object at 0x[0-9a-f]+")
"""What makes a call of one object another one than the same call of the next."""
PATIENCE = 60.0


class Span(NamedTuple):
    thread: str
    began: float
    """Microseconds, as the end."""
    ended: float
    name: str
    kind: str


def draw(trace: Path) -> str:
    """Write stacks.txt beside a trace, and flame.svg where a tool for it is installed. Returns a line for the user."""
    stacks = trace.with_name("stacks.txt")
    stacks.write_text("\n".join(folded(json.loads(trace.read_text())["traceEvents"])) + "\n")
    tool = next((name for name in TOOLS if shutil.which(name)), None)
    if tool is None:
        how = "cargo install inferno"
        return f"no flame graph: none of {', '.join(TOOLS)} is installed ({how}); {stacks.name} is what they draw"
    try:
        drawn = subprocess.run(
            [tool, *TOOLS[tool], str(stacks)], capture_output=True, check=True, timeout=PATIENCE, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"no flame graph: {tool} failed on {stacks}: {error}"
    trace.with_name("flame.svg").write_text(drawn.stdout)
    return f"flame graph in {trace.with_name('flame.svg')}, drawn by {tool}"


def folded(events: list[dict[str, Any]]) -> list[str]:
    """``thread;call;...;operator microseconds``, a line for each stack, with the time in the last of it alone.

    ``events`` are those of a Chrome trace, of which a thread's complete ones lie in one another. What began before a
    step, such as the calls that lead to it, is left out.
    """
    spans = [Span(str(e["tid"]), float(e["ts"]), float(e["ts"]) + float(e["dur"]), e["name"], e["cat"])
             for e in events if e.get("ph") == "X" and e.get("cat") in KINDS]  # fmt: skip
    steps = [span for span in spans if span.name.startswith(STEP)]
    found: Counter[str] = Counter()
    enclosing: list[tuple[Span, str]] = []
    for span in sorted(spans, key=lambda s: (s.thread, s.began, -s.ended)):
        if not any(step.began <= span.began and span.ended <= step.ended for step in steps):
            continue
        if enclosing and enclosing[-1][0].thread != span.thread:
            enclosing = []
        while enclosing and span.began >= enclosing[-1][0].ended:
            enclosing.pop()
        above = enclosing[-1][1] if enclosing else f"thread {span.thread}"
        stack = f"{above};{'step' if span.name.startswith(STEP) else ADDRESS.sub('', span.name).replace(';', ',')}"
        found[stack] += round(span.ended - span.began)
        if enclosing:
            found[above] -= round(min(span.ended, enclosing[-1][0].ended) - span.began)
        enclosing.append((span, stack))
    return [f"{stack} {count}" for stack, count in sorted(found.items()) if count > 0]
