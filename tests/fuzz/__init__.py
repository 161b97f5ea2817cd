"""A fuzzer that passes mutated archives to all code that reads archives."""
