"""Owns the demo bundle for edits."""
