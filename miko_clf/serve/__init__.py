"""Serving: posts to scores by the exported graph, over HTTP or from a file. Free of torch."""
