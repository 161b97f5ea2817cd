"""Registries: made known to the nodes, and pushed to."""
