import math
import random
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accel_cli.analysis.chart import (
    HEIGHT,
    WIDTH,
    Point,
    Series,
    line_chart,
    log_ticks,
    running_mean,
    segments,
    stacked_bar,
    thin,
    ticks,
)  # fmt: skip
from accel_cli.analysis.markup import Html

finite = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-9)


def coordinates(svg: Html) -> list[tuple[float, float]]:
    """Of every stroke, dot and tick."""
    found = []
    for node in ElementTree.fromstring(svg).iter():
        found += [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", node.get("d", ""))]
        for x, y in (("cx", "cy"), ("x", "y"), ("x1", "y1"), ("x2", "y2")):
            if x in node.attrib:
                found.append((float(node.attrib[x]), float(node.attrib[y])))
    return found


def draw(points: list[Point], log: bool = False) -> Html:
    return line_chart([Series("a", points)], title="t", x_label="steps", y_label="loss", log=log, smooth=True)


@example([(5e-324, 0.0)])
@example([(1.5e-12, 0.0)])
@given(st.lists(st.tuples(st.floats(0, 1e9), finite), min_size=1, max_size=50))
def test_everything_lies_in_the_box(points: list[Point]) -> None:
    svg = draw(points, log=True)
    assert "nan" not in svg
    assert all(-0.1 <= x <= WIDTH + 0.1 and -0.1 <= y <= HEIGHT + 0.1 for x, y in coordinates(svg))


def test_log_scale_only_beyond_two_decades() -> None:
    steep = [(float(i), 10.0 ** -(i / 10)) for i in range(30)]
    assert "loss (log)" in draw(steep, log=True)
    assert "(log)" not in draw(steep[:20], log=True)
    assert "(log)" not in draw(steep)
    assert "(log)" not in draw([*steep, (30.0, -1.0)], log=True)


def test_what_is_not_finite_breaks_the_line_and_so_does_going_back() -> None:
    points = [(1, 1.0), (2, math.nan), (3, 2.0), (4, 3.0), (2, 5.0), (3, math.inf)]
    assert segments(points) == [[(1, 1.0)], [(3, 2.0), (4, 3.0)], [(2, 5.0)]]
    assert "No records" in draw([(1, math.nan)])


def test_thinning_keeps_spikes_and_ends() -> None:
    draws = random.Random(0)
    points = [(float(i), draws.random()) for i in range(10_000)]
    points[4321] = (4321.0, 99.0)
    kept = thin(points)
    assert len(kept) <= 242
    assert points[4321] in kept
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)


def test_running_mean() -> None:
    assert running_mean([(0, 4.0), (1, 0.0), (2, 2.0), (3, 4.0)], 1) == [(0, 4.0), (1, 2.0), (2, 2.0), (3, 3.0)]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_even_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    slack = span * 1e-6 + 1e-9
    assert all(low - slack <= value <= low + span + slack for value in found)
    gaps = [after - before for before, after in pairwise(found)]
    assert max(gaps) == pytest.approx(min(gaps))


def test_log_ticks_are_decades() -> None:
    assert log_ticks(0.004, 3) == [0.01, 0.1, 1.0]
    assert len(log_ticks(1e-12, 1e3)) <= 6


@pytest.mark.parametrize("shares", [{"data": 0.25, "forward": 0.5}, {"data": 0.9, "forward": 0.9}, {"data": -1}])
def test_bars_fill_what_the_shares_say(shares: dict[str, float]) -> None:
    rectangles = list(ElementTree.fromstring(stacked_bar(shares)).iter("rect"))
    ends = [float(node.attrib["x"]) + float(node.attrib["width"]) for node in rectangles]
    total = sum(value for value in shares.values() if value > 0)
    assert max(ends, default=0.0) == pytest.approx(min(total, 1.0) * 100, abs=0.1)


def test_bars_leave_out_what_is_not_known() -> None:
    assert "rect" not in stacked_bar({"data": None, "forward": "much"})
