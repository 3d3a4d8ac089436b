"""Posts: what they are, how they are read, and the arrays that models take."""
