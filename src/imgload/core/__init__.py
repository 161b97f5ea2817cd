"""Errors, and helpers that know nothing of images."""
