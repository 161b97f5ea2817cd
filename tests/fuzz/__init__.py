"""A fuzzer for archives: mutants of real ones, driven through everything that reads them."""
