"""Runs the real tritonserver that the package nvidia-pytriton carries: no Docker, no GPU."""
