"""Owns the error that a command shows as one line."""


class ExportError(Exception):
    """Why something cannot be built, in words for the person who runs the command."""
