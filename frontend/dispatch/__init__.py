"""Owns the way of jobs to a Triton and back."""
