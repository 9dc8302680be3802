"""Owns pictures: decoding, encoding and the threads that do it."""
