"""Owns Triton as the frontend sees it: tensors, calls, health."""
