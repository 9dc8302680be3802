"""Owns the logic of smart_mask, without Triton."""
