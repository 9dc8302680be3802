"""Owns the HTTP server, its command line and the local launcher of tritonserver."""

from importlib.metadata import version

__version__ = version("artmancer-triton")
