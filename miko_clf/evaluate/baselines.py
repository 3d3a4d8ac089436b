"""What a system must beat to have learned anything."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

# Both chosen once by 5-fold cross-validation on the training rows of Harm-C, text with and without
# captions: mean macro-F1 .748; .3 to 30, with and without class weights, were tried.
INVERSE_REGULARISATION = 3.0
CLASS_WEIGHT = "balanced"


def majority(
    train_truth: Int[np.ndarray, " train"] | Int[np.ndarray, "train label"],
    num_labels: int,
    num_rows: int,
) -> Float[np.ndarray, "row label"]:
    """Return each class's share of the training rows, the same for every row.

    The truth is the index of a row's class or, where any may hold, 1 for each that does.
    """
    if train_truth.ndim == 2:
        return np.tile(train_truth.mean(0), (num_rows, 1))
    shares = np.bincount(train_truth, minlength=num_labels) / len(train_truth)
    return np.tile(shares, (num_rows, 1))


def tfidf_logistic(
    train_texts: Sequence[str],
    train_truth: Int[np.ndarray, " train"] | Int[np.ndarray, "train label"],
    texts: Sequence[str],
    num_labels: int,
) -> Float[np.ndarray, "row label"]:
    """Return the probabilities of a logistic regression on TF-IDF of words and word pairs.

    A class without training rows gets 0. Training rows of one class, or without a word, give what
    `majority` gives. Where any number of classes may hold there is a regression for each.
    """
    if train_truth.ndim == 2:
        each = [tfidf_logistic(train_texts, held, texts, 2)[:, 1] for held in train_truth.T]
        return np.stack(each, axis=1)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    analyse = vectoriser.build_analyzer()
    spread = Counter(term for text in train_texts for term in set(analyse(text)))
    if not spread or len(np.unique(train_truth)) < 2:
        return majority(train_truth, num_labels, len(texts))
    vectoriser.set_params(min_df=min(2, max(spread.values())))  # a few rows may share no term
    model = make_pipeline(
        vectoriser,
        LogisticRegression(C=INVERSE_REGULARISATION, class_weight=CLASS_WEIGHT, max_iter=1000),
    ).fit(train_texts, train_truth)
    probabilities = np.zeros((len(texts), num_labels))
    probabilities[:, model.classes_] = model.predict_proba(texts)
    return probabilities
