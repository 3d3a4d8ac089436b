"""Why a system decides as it does: inputs, relations, neighbours, words and patches."""

from miko_clf.evaluate.explain.findings import explain

__all__ = ["explain"]
