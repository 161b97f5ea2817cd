"""The in-process registry that engines push into."""
