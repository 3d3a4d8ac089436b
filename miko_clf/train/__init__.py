"""Training: a reasoning stage, then a task stage, in one loop that survives being killed."""
