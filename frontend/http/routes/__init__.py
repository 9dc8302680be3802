"""Owns the HTTP endpoints."""
