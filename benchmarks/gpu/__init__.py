"""Owns measuring the edit on a GPU, within one short loan of one machine."""

import os

# Before anything loads a library that would ask a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# Puts the models on the path, also where one of these modules is run by itself.
from export import serving_code  # noqa: F401
