"""Triton seen from the frontend: tensors, streams, health."""
