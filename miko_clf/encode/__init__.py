"""Encoders: one shape contract for towers of four sources, and a cache of what frozen ones say."""
