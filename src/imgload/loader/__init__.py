"""From image names to verified nodes."""
