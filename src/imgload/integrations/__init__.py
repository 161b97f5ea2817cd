"""Other tools' contracts, kept so that imgload can stand in their place."""
