"""What is wrong between here and the nodes, and the command that changes it."""
