"""Encoders: towers of several sources under one shape contract, and a cache of frozen ones."""
