"""Fusion: content attends to itself and reads, behind a gate, what the author intends."""
