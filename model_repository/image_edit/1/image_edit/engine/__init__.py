"""Owns all of image_edit that may import torch."""
