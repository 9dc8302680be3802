"""Owns the version of this project."""

from importlib.metadata import version

VERSION = version("artmancer-triton")
