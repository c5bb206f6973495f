"""Search: proposals of architectures, on top of the study that keeps the runs."""
