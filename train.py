"""Train a recipe on a folder of posts: python train.py RECIPE --data D --out BUNDLE.

RECIPE is a YAML file, or the name of a shipped one. `python train.py --help` lists every option,
among them `--recipe.KEY VALUE` for each key of a recipe.
"""

from miko_clf.cli.main import run_command

if __name__ == "__main__":
    run_command("fit", "python train.py")
