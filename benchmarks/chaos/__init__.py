"""Fault injection: what a study shared by several machines loses when everything around it breaks."""
