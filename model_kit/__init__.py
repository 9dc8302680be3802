"""Owns what the models share; installed beside them."""
