"""Owns running the real tritonserver of the package nvidia-pytriton: no Docker, no GPU."""
