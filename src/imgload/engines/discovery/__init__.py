"""Discovery of the engines that this machine can reach."""
