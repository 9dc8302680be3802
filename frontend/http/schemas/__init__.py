"""Owns the bodies of requests and answers."""
