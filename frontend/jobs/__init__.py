"""Owns jobs: their rules and where they are kept."""
