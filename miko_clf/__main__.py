"""The command line as `python -m miko_clf`."""

from miko_clf.cli.main import main

if __name__ == "__main__":
    main()
