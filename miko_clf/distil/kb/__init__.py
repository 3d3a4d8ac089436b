"""The knowledge base: every answer that was paid for, in one SQLite file."""
