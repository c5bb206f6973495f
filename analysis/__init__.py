"""Rows in, tables and figures out. Reads ``runs/<study>``; knows nothing of how rows are made."""
