"""Owns the drawn scenes that training and measuring use."""
