"""Experiments beside the tables, each a module with `add_arguments(parser)` and `main(options)`."""
