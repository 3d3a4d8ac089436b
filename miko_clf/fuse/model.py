"""The kinds of model that a recipe can be built into."""

from miko_clf.fuse.classifier import MikoClassifier
from miko_clf.fuse.conditioned import Conditioned
from miko_clf.fuse.generator import Generator

Model = MikoClassifier | Conditioned | Generator
