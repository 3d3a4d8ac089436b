"""Evaluate bundles, or a comparison of recipes: python evaluate.py BUNDLE... --data D --split test.

The test split is opened here alone, and each opening is counted. Prints the table of all systems
and arms, and writes it as report.json, report.md and report.html.
"""

from miko_clf.cli.main import run_command

if __name__ == "__main__":
    run_command("evaluate", "python evaluate.py")
