"""Owns building what the models load: bundles and their manifests."""
