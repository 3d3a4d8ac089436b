"""The page of a report: what was found, as a person would want to see it."""
