"""Owns the logic of edit_conditions, without Triton."""
