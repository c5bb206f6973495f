"""Measurements as commands: each prints ratios of things timed in one run, on the machine it runs on."""
