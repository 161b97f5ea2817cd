"""Operations on a node: containerd (ctr) and CRI (crictl)."""
