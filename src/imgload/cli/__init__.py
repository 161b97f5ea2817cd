"""The ``imgload`` command: parses options, calls the library, prints results."""
