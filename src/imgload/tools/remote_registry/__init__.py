"""Connect nodes to a registry, and push images to it."""
