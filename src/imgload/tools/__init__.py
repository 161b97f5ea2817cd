"""Built on a load: watch, inventory, doctor, registries, drop-ins, Skaffold."""
