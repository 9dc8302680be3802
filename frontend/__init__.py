"""Owns the HTTP server, its command line and the local launcher of tritonserver."""
