"""OCI documents, digests and archives; pure, no I/O."""
