"""Errors, and helpers that do not depend on images."""
