"""Owns measuring a running server; results/ keeps what was measured."""
