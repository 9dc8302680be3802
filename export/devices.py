"""Owns what depends on the device that a network is trained on."""

import torch

from export.serving_code import Tuning, torch_dtype


def autocast(device: torch.device) -> torch.autocast:
    """Let a network compute in bfloat16 where the device has bfloat16 in hardware.

    A processor that emulates bfloat16 takes many times longer than with float32.
    """
    dtype = torch_dtype(Tuning("auto"), str(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)
