"""What can be done on a node: containerd (ctr) and CRI (crictl)."""
