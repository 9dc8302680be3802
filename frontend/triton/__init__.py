"""Triton seen from the frontend: tensors, calls, health."""
