"""Owns the commands about edits that the server has: `jobs`, `status`, `cancel` and `result`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontend.cli import progress
from frontend.cli.console import DEFAULT_URL, Url, console, fail, stderr
from frontend.cli.edit import OPTIONS, check_done, fetch
from frontend.cli.output import Output
from frontend.cli.session import Interrupted, by_options, session
from frontend.domain.jobs import JobStatus
from frontend.streams import forgive_lost_output

if TYPE_CHECKING:
    from collections.abc import Iterator


def _not_empty(task: str) -> str:
    if not task:
        raise typer.BadParameter("it is empty")
    return task


TaskId = Annotated[
    str,
    typer.Argument(metavar="TASK", help="As `artmancer edit` printed it.", callback=_not_empty),
]


def jobs(
    status: Annotated[list[JobStatus] | None, typer.Option(help="Only these; repeatable.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, up to 100.")] = 20,
    before: Annotated[
        int | None, typer.Option(help="Go on where a list ended, which says so.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """List your edits on the server, newest first.

    Yours are those of your API key or, without one, those of your address.
    """
    query = {"status": [each.value for each in status or ()], "limit": limit, "before": before}
    options = {name: f"--{name}" for name in query}
    with session(url, options) as (client, *_):
        page = client.tasks(**{name: value for name, value in query.items() if value is not None})
    for task in page["tasks"]:
        created = datetime.fromisoformat(task["created_at"]).astimezone()
        console.print(
            f"{task['task_id']}  {created:%Y-%m-%d %H:%M:%S}  {task['task_type']:13}", end="  "
        )
        console.print("  ".join(_words(task)))
    if page["next_before"]:
        stderr.print(f"artmancer: there are more: artmancer jobs --before {page['next_before']}")


def status(task: TaskId, url: Url = DEFAULT_URL) -> None:
    """Show how far an edit is."""
    with session(url) as (client, *_):
        known = client.status(task)
    console.print("  ".join(_words(known)))


def cancel(task: TaskId, url: Url = DEFAULT_URL) -> None:
    """Cancel an edit, and show how it ended.

    One that had ended stays as it is.
    """
    with session(url) as (client, *_):
        had_ended = JobStatus(client.status(task)["status"]).terminal
        client.cancel(task)
        *_, last = client.follow(task)
    console.print(f"had ended before: {last.status}" if had_ended else last.status)


def result(
    task: TaskId,
    out: Annotated[Path, typer.Option(help="Where to write the result.")] = Path("edited.png"),
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch the picture of an edit; wait if the edit has not ended.

    Ctrl-C or SIGTERM ends the waiting, not the edit.
    """
    forgive_lost_output()
    out_file = Output(out)
    with session(url) as talk:
        client, interrupts, _ = talk
        try:
            last = progress.show(client.follow(task), "edit", console)
        except Interrupted as interrupted:
            interrupts.heard()
            fail("interrupted: the edit goes on", interrupted.code)
        check_done(last)
        seconds = fetch(talk, task, out_file)
    console.print(f"{out}  (edited in {seconds:.1f} s)")


def _words(task: dict[str, Any]) -> Iterator[str]:
    """Yield what a TaskStatus says, in words."""
    known = JobStatus(task["status"])
    yield f"{known:10}"
    if known is JobStatus.QUEUED and task["queue_position"]:
        yield f"place {task['queue_position']} in the queue"
    if known is JobStatus.PROCESSING:
        yield task["loading_message"] or f"step {task['current_step']} of {task['total_steps']}"
    if not known.terminal and task["eta_seconds"] is not None:
        yield f"about {task['eta_seconds']:.0f} s left"
    if task["error"]:
        yield by_options(task["error"], OPTIONS)
