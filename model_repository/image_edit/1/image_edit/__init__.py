"""Owns the logic of image_edit, without Triton."""
