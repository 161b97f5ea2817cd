"""imgload beside the real kind, in one run."""
