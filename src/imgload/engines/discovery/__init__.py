"""Find the engines that this machine can reach."""
