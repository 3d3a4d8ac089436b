"""Recipes: every choice that makes one system differ from another, and nothing else."""
