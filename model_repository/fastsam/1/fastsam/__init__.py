"""Owns the logic of fastsam on a CPU, without Triton."""
