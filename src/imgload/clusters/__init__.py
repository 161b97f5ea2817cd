"""Clusters, their nodes, and the engines that run these."""
