"""Ask LLMs once, offline, what the author intends; keep, check and judge what they say."""
