"""Owns the demo network for masks."""
