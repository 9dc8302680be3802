"""Owns smart masks: the service and the pictures it keeps."""
