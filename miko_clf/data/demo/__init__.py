"""The demo world: drawn posts whose labels are known by construction."""
