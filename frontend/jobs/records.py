"""Owns how an event and an edit are written into a store: JSON, and the pictures beside it.

While processes are upgraded one by one, older ones read what newer ones have written. They leave
out the fields of events and Tritons that they do not know. Of an edit they leave out those that its
client has not set: an edit that asks for what they cannot do fails.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from frontend.domain.edits import EditParams, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.domain.tritons import TritonState

if TYPE_CHECKING:
    from collections.abc import Mapping

PICTURES = ("image", "reference_image", "reference_mask_r")
CONDITIONS = "conditional_images"


def event_json(event: JobEvent) -> str:
    """Return an event as JSON, without its preview."""
    fields = dataclasses.asdict(event)
    del fields["preview"]
    return json.dumps(fields, separators=(",", ":"))


def event_of(data: str, preview: bytes) -> JobEvent:
    """Return the event that `event_json` has written."""
    fields = _known(JobEvent, data)
    fields["status"] = JobStatus(fields["status"])
    if fields["stage"] is not None:
        fields["stage"] = Stage(fields["stage"])
    if fields["size"] is not None:
        fields["size"] = tuple(fields["size"])
    if fields["computed_sizes"] is not None:
        fields["computed_sizes"] = tuple(tuple(size) for size in fields["computed_sizes"])
    return JobEvent(**fields, preview=preview)


def triton_json(state: TritonState) -> str:
    """Return how a Triton stands as JSON."""
    return json.dumps(dataclasses.asdict(state), separators=(",", ":"))


def triton_of(data: str) -> TritonState:
    """Return what `triton_json` has written."""
    fields = _known(TritonState, data)
    fields["adapters"] = tuple(fields["adapters"])
    return TritonState(**fields)


def _known(kind: type[JobEvent | TritonState], data: str) -> dict[str, Any]:
    names = _names(kind)
    return {name: value for name, value in json.loads(data).items() if name in names}


def _names(kind: type[JobEvent | TritonState | EditParams]) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(kind))


def params_json(params: EditParams) -> str:
    """Return an edit as JSON; instead of each picture it has the name in `pictures_of`."""
    fields = {
        field.name: getattr(params, field.name)
        for field in dataclasses.fields(params)
        if field.name not in (*PICTURES, CONDITIONS)
    }
    return json.dumps({"fields": fields, "pictures": list(pictures_of(params))})


def pictures_of(params: EditParams) -> dict[str, bytes]:
    """Return an edit's pictures by name."""
    single = {name: getattr(params, name) for name in PICTURES}
    conditions = {f"{CONDITIONS}/{i}": data for i, data in enumerate(params.conditional_images)}
    return {name: data for name, data in single.items() if data is not None} | conditions


def picture_names(data: str) -> list[str]:
    """Return the names of the pictures of the edit that `params_json` has written."""
    names: list[str] = json.loads(data)["pictures"]
    return names


def params_of(data: str, pictures: Mapping[str, bytes]) -> EditParams:
    """Return the edit that `params_json` has written.

    Args:
        data: the JSON.
        pictures: as `pictures_of` returned them.

    Raises:
        TypeError: it asks for what only a newer program can do.
    """
    written = json.loads(data)
    conditions = tuple(pictures[name] for name in written["pictures"] if "/" in name)
    single: dict[str, Any] = {
        name: pictures[name] for name in written["pictures"] if "/" not in name
    }
    names = _names(EditParams)
    fields = {
        name: value
        for name, value in written["fields"].items()
        if name in names or value is not None
    }
    return EditParams(**fields, **single, conditional_images=conditions)
