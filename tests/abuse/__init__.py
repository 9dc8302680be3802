"""Owns what a stranger may try: files made to harm, and what must become of them."""
