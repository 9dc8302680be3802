"""Owns the words that all layers share, by subject."""
