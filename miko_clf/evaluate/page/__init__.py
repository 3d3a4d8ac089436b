"""The page of a report: what was found, as a person would want to see it."""

from miko_clf.evaluate.page.whole import page

__all__ = ["page"]
