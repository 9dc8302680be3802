"""Owns running out of a GPU's memory on purpose, and continuing."""

import json
import os
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu import machine, vae
from image_edit.engine.device import coded_device_errors, give_back_memory
from image_edit.engine.vae import keep_to_pictures
from model_kit.errors import CodedError

# GiB that the process may use: too little for 2048² beside `HELD`.
LIMIT = 8.0
HELD = 5.0
VARIABLE = "PYTORCH_ALLOC_CONF"


def measure() -> dict[str, Any]:
    """Run out at 2048², then decode at 1024², with expandable segments and without."""
    found = {}
    for setting in ("", "expandable_segments:True"):
        done = subprocess.run(
            [
                sys.executable,
                *("-m", "benchmarks.gpu.memory"),
                "full" if machine.current.scale.full else "tiny",
            ],
            env=os.environ | ({VARIABLE: setting} if setting else {}),
            capture_output=True,
            text=True,
            timeout=machine.CHILD_S,
            check=True,
        )
        found[setting or "as_is"] = json.loads(done.stdout.splitlines()[-1])
    return {
        "settings": found,
        "summary": [
            f"{name}: {each['error'] or 'did not run out'}, then "
            f"{'went on' if each['went_on'] else 'failed again'}"
            for name, each in found.items()
        ],
    }


@torch.inference_mode()
def run_out() -> dict[str, Any]:
    """Hold some memory, decode until none is left, free it, and decode a smaller picture."""
    device = machine.current.device
    full = machine.current.scale.full
    if full:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(LIMIT * machine.GIB / whole, device)
    model = vae.build()
    keep_to_pictures(model)
    held = torch.empty(int(HELD * machine.GIB) if full else 1, dtype=torch.uint8, device=device)
    error = ""
    for side in machine.current.scale.of((512, 768, 1024, 1536, 2048), (16, 32)):
        try:
            with coded_device_errors(device):
                model.decode(machine.random_tensor(1, 16, 1, side // 8, side // 8))
                machine.synchronize()
        except CodedError as ended:
            error = f"{ended.code} at {side}"
            break
    found = {"error": error, "held": held.nbytes, "before": _reserved()}
    give_back_memory(device)
    found["after"] = _reserved()
    side = machine.current.scale.of(1024, 16)
    with coded_device_errors(device):
        model.decode(machine.random_tensor(1, 16, 1, side // 8, side // 8))
        machine.synchronize()
    return found | {"went_on": True}


def _reserved() -> float:
    full = machine.current.scale.full
    reserved = torch.cuda.memory_reserved(machine.current.device) if full else 0
    return round(reserved / machine.GIB, 2)


if __name__ == "__main__":
    machine.use_as_told()
    print(json.dumps(run_out()))
