"""Compare bundles on the same posts: python evaluate.py BUNDLE... --data D --split test.

Prints the table of all systems and arms, and writes it as report.json and report.md.
"""

from miko_clf.cli import run

if __name__ == "__main__":
    run("compare", "python evaluate.py")
