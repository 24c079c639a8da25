"""The scripts behind make: each is run as a file or as a module."""
