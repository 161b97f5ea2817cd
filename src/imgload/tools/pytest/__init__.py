"""Fixtures for pytest that load images."""
