"""Figures of a study for papers: each file has ``data`` (study -> plain numbers) and ``draw``."""
