"""Load each image as soon as it is built."""
