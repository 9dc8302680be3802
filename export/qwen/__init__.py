"""Owns Qwen-Image-Edit-2509: its bundle and its download."""
