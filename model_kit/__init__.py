"""Owns what the models share: one small package, installed in the Python that runs them."""
