"""Measures a running server and keeps what it measured in results/."""
