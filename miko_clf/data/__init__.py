"""Posts: what they are, how files of them are read, and how they become arrays."""
