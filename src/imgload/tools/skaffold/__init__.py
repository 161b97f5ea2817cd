"""A custom builder for Skaffold."""
