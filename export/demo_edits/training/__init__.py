"""Owns the training of the demo bundle for edits."""
