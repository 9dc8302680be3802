"""Figures that the benchmarks compute, against cases worked out by hand."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import growth, latency, perf_analyzer, replicas, report, subscribers
from benchmarks.client import Event

RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))
CSV = """\
Concurrency,Inferences/Second,Response Throughput,Client Send,Server Queue,p50 latency,p99 latency
1,0.5,5.5,10,7,2000000,2100000
2,0.75,6,11,8,2600000,2700000
"""


def event(number: int, at: float, step: int = 0) -> Event:
    return Event(number, at, {"status": "processing", "current_step": step})


def test_summary_of_samples() -> None:
    assert report.summary([4.0, 1.0, 3.0, 2.0, 10.0]) == {
        "median": 3.0,
        "quartiles": [2.0, 4.0],
        "min": 1.0,
        "max": 10.0,
        "samples": [4.0, 1.0, 3.0, 2.0, 10.0],
    }


def test_95_of_100_samples_are_within_the_95th_percentile() -> None:
    assert report.p95([float(number) for number in range(101)]) == 95.0
    assert report.p95([2.0, 1.0]) == 1.95


def test_a_step_lasts_from_the_first_event_of_one_count_to_that_of_the_next() -> None:
    # Step 0 ends no step; the repeated event of step 2 does not count; 3 to 4 is not seen.
    ends = [(0, 0.0), (1, 1.0), (2, 1.5), (2, 1.7), (3, 3.5), (5, 9.0)]
    events = [event(n, at, step) for n, (step, at) in enumerate(ends)]
    assert latency.step_seconds(events) == pytest.approx((0.5 + 2.0) / 2)


def test_spread_is_over_all_subscribers_and_leaves_replays_out() -> None:
    received = [
        [event(1, 0.0), event(2, 1.0), event(3, 2.0)],
        [event(1, 9.0), event(2, 1.25), event(3, 2.0)],
        [event(1, 9.0), event(2, 0.75), event(3, 2.125)],
    ]
    assert subscribers.receipt_spreads(received, live_from=2) == [0.5, 0.125]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([1, 2, 3], 0), ([1, 3], 1), ([1, 1, 2], 1), ([2, 1, 3], 2), ([5], 0)],
)
def test_every_gap_and_repetition_is_counted(numbers: list[int], expected: int) -> None:
    assert subscribers.out_of_sequence([event(n, 0.0) for n in numbers]) == expected


def test_an_events_way_is_from_its_sending_to_the_first_event_of_its_step() -> None:
    steps = [("a.1", 1.0), ("b.1", 5.0), ("a.1", 2.0), ("a.2", 3.0)]
    assert replicas.step_times(steps, "a") == [1.0, 2.0, 3.0]
    # Step 0 ends none, and another event of step 2 is that of a later stage.
    received = [event(1, 0.5, 0), event(2, 1.25, 1), event(3, 2.5, 2), event(4, 2.75, 2)]
    assert replicas.ways([1.0, 2.0], received) == [0.25, 0.5]
    with pytest.raises(KeyError):
        replicas.ways([1.0, 2.0, 3.0], received)


def test_growth_is_compared_within_a_round() -> None:
    by_jobs = {10: [1.0, 2.0, 4.0], 100_000: [2.0, 2.0, 6.0], 1000: [9.0, 9.0, 9.0]}
    assert growth.grown(by_jobs) == 1.5


def test_perf_analyzers_report_is_read() -> None:
    first, second = perf_analyzer.parse_report(CSV)
    assert first["Concurrency"] == 1
    assert second == {
        "Concurrency": 2,
        "Inferences/Second": 0.75,
        "Response Throughput": 6,
        "p50 latency": 2_600_000,
        "p99 latency": 2_700_000,
    }


def shown(results: dict[str, Any]) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(*report.tables(results))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_report_is_shown_with_every_figure() -> None:
    summary = report.summary([0.5, 0.25, 1.0])
    results = {"ms": {"first": summary, "all": 7}, "same": [1, 2], "rows": [{"n": 1, "s": 0.12345}]}
    lines = [" ".join(line.replace("│", " ").split()) for line in shown(results).splitlines()]
    assert "ms: first, median 0.5 (0.375 to 0.75)" in lines
    assert "ms: all 7" in lines
    assert "same 1, 2" in lines
    assert "1 0.1235" in lines


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_kept_report_can_be_shown(path: Path) -> None:
    text = shown(json.loads(path.read_text())["results"])
    assert "samples" not in text
    assert len(text.splitlines()) > 5


def test_a_report_says_where_and_how_it_was_measured(tmp_path: Path) -> None:
    rows = perf_analyzer.parse_report(CSV)
    results = {"title": "8-step edits", "ylabel": "edits", "concurrency": rows}
    path = report.save("example", report.machine(), results, perf_analyzer.draw, tmp_path)
    saved = json.loads(path.read_text())
    assert saved["results"] == results
    assert saved["command"].startswith("python -m benchmarks")
    assert saved["machine"]["cores"] >= 1
    assert saved["machine"]["memory_gib"] > 0
    assert saved["versions"]["torch"]
    assert saved["date"].startswith(path.name.removesuffix("-example.json"))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
