"""Measurements against other people's implementations. Nothing of retsweep imports it."""
