"""Owns HTTP: the application, its answers, routes and schemas."""
