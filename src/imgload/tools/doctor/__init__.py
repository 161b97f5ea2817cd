"""Diagnose problems between this machine and the nodes, and suggest fixes."""
