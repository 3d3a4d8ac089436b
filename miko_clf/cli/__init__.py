"""The command line: one module a group of commands, each with its options and what it does."""
