"""Nodes pull the images of the local engines by themselves."""
