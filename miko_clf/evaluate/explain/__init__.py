"""Why a system decides as it does: inputs, relations, neighbours, words and patches."""
