"""Drop-ins for the load commands of kind and k3d."""
