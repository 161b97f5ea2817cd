"""List and prune the images on nodes."""
