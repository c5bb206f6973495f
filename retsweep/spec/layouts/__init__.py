"""Layouts: pure functions from a depth to a list of layers. One a file, one a YAML."""
