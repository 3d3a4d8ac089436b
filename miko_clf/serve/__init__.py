"""Serve: scores from a bundle, by file, by call and over HTTP, without torch."""
