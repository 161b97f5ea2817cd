"""Load each image when an engine has built or tagged it."""
