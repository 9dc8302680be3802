"""Owns the table of what was measured on a GPU, as docs/verification.md has it."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "gpu"
NOTHING = "No file is there yet: nothing has been measured on a GPU."


def table(folder: Path) -> str:
    """Return a row for the newest file of each measurement, in Markdown."""
    newest: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        newest[report["measurement"]] = report
    if not newest:
        return NOTHING
    rows = ["| measurement | date | GPU | result |", "|---|---|---|---|"]
    for name, report in newest.items():
        results = report.get("results", {})
        result = "; ".join(results["summary"]) if results else report["error"].splitlines()[-1]
        cells = (name, report["date"][:10], report.get("device", "-"), result)
        rows.append(f"| {' | '.join(each.replace('|', '/') for each in cells)} |")
    return "\n".join(rows)
