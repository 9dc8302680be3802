"""Edits and masks: their state, their queues and their way through Triton."""
