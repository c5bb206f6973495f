"""Ways to start workers beside processes of this machine: each a thin config on a library."""
