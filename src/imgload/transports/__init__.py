"""Delivers the content of images to nodes."""
