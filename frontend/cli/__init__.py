"""Owns the command line `artmancer`."""
