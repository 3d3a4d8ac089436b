"""A report with every finding in it, as `report.json` would hold it; all of it is made up."""

import json
from html.parser import HTMLParser
from typing import Any

VOID = {"br", "img", "input", "meta"}


def make_interval(value: float, reach: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def make_report(**changes: Any) -> dict[str, Any]:
    """Return a fresh report; `changes` replace its fields."""
    metrics = {
        "accuracy": make_interval(0.8),
        "macro_f1": make_interval(0.75),
        "auroc": make_interval(0.85),
    }
    made = {
        "rows": [
            make_report_row("majority", "-", {"accuracy": make_interval(0.6), "auroc": None}),
            make_report_row("pupil-0", "student", metrics, 0.4123),
            make_report_row(
                "pupil-0", "without", metrics, {"harmful": 0.25}, "trained on other posts"
            ),
        ],
        "data": "sets/harm-c",
        "fingerprint": "f00dfeed",
        "split": "test",
        "counts": {"harmless": 60, "harmful": 40},
        "positive": "harmful",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "command": "python evaluate.py runs/pupil-0 --data sets/harm-c",
        "seconds": 12.3,
        "differences": [
            make_difference("pupil-0/student", "pupil-0/without", "macro_f1", 0.02, 0.01),
            make_difference("pupil-0/student", "pupil-0/without", "auroc", 0.001, 0.01),
            make_difference("pupil-1/student", "pupil-0/student", "auroc", -0.05, 0.02),
        ],
        "num_resamples": 1000,
        "level": 0.95,
        "findings": make_findings(),
    }
    return json.loads(json.dumps(made | changes))  # type: ignore[no-any-return]


def make_report_row(
    system: str, arm: str, metrics: dict[str, Any], threshold: Any = None, note: str = ""
) -> dict[str, Any]:
    named = {"system": system, "arm": arm, "rows": 100, "metrics": metrics}
    return named | {"threshold": threshold, "note": note}


def make_difference(a: str, b: str, metric: str, value: float, reach: float) -> dict[str, Any]:
    return {"a": a, "b": b, "metric": metric, "interval": make_interval(value, reach)}


def make_findings() -> dict[str, Any]:
    return {
        "system": "pupil-0",
        "arm": "student",
        "comparison": _comparison(),
        "curves": _curves(),
        "ranked": _ranked(),
        "training": [
            {"system": "pupil,task.epochs=9", "arm": arm, "seed": seed, "lines": [
                {"stage": stage, "step": step, "validation": {"loss": 0.7, "auroc": 0.8}}
                for stage in ("task", "reasoning") for step in (9, 18)]}
            for seed in (0, 1) for arm in ("without", "trained-on-noise")
        ],
        "calibration": _calibration(),
        "overlap": _overlap(),
        "review_desk": _review_desk(),
        "shapley": {
            "players": ["image", "text"],
            "of": "logit of harmful minus logit of harmless",
            "mean_absolute": {"image": make_interval(0.4), "text": make_interval(1.1)},
            "mean": {"image": make_interval(-0.1), "text": make_interval(0.3)},
            "rows": [{"id": "m1", "base": 0, "full": 1, "values": {"image": -0.5, "text": 1.5}}],
        },
        "relations": [
            {"relation": "xIntent", "posts": 90, "attention": make_interval(0.3),
             "left_out": {"auroc": make_interval(-0.02, 0.01)}},
        ],
        **_populations(),
        **_origins(),
        "mistakes": [
            {"id": "m1", "text": "first words", "description": "a man at a desk",
             "label": "harmless", "decided": "harmful", "probability": 0.93,
             "intentions": [{"relation": "xIntent", "text": "to mock"}],
             "image": "data:image/jpeg;base64,AAAA"},
        ],
        "neighbours": [
            {"id": "m1", "label": "harmless", "decided": "harmful", "neighbours": [
                {"id": "t1", "label": "harmful", "similarity": 0.81, "text": "a training text"}]},
        ],
        "attribution": {"of": "the logit", "rows": [
            {"id": "m1", "tokens": [["mocking", 0.4], ["desk", -0.2]],
             "patches": [[0.1, -0.3], [None, 0.0]]}]},
        "lockbox": {"openings": 2, "of": [
            {"split": "test", "fingerprint": "cafe01", "when": "2026-11-20T09:12:44Z"}]},
        "audit": {"lines": ["4 images of test are in train too"]},
        "not_installed": ["cleanlab"],
    }  # fmt: skip


def _populations() -> dict[str, Any]:
    return {
        "slices": [
            {"by": by, "value": value, "posts": 100, "share_positive": 0.4,
             "metrics": {"macro_f1": make_interval(0.7), "accuracy": None}}
            for by, value in (("all", "all posts"), ("hashtag", "in the text"))
        ],
        "slices_left_out": 3,
        "groups": [
            {"group": "women", "posts": 30, "subgroup_auroc": make_interval(0.8),
             "bpsn_auroc": make_interval(0.7), "bnsp_auroc": make_interval(0.9),
             "false_positive_rate": make_interval(0.2),
             "false_positive_gap": make_interval(0.11, 0.02)},
        ],
        "groups_left_out": {"sailors": 3},
        "pairs": [
            {"kind": "same text, another image", "pairs": 7, "both_right": make_interval(0.4)},
        ],
        "suspects": [
            {"id": "s1", "text": "doubtful words", "label": "harmful", "likely": "harmless",
             "quality": 0.031, "issue": True},
        ],
        "robustness": [
            {"change": "typos", "level": "5%", "posts": 100, "changed": 88,
             "metrics": {"macro_f1": make_interval(0.7)},
             "difference": {"macro_f1": make_interval(-0.06)}},
        ],
        "matrix": {"metric": "macro_f1", "cells": [
            {"train": "harm-c", "test": "harm-p", "posts": 355, "value": make_interval(0.55)},
            {"train": "harm-p", "test": "harm-p", "posts": 355, "value": None},
        ]},
    }  # fmt: skip


def _origins() -> dict[str, Any]:
    return {
        "over_time": {
            "words": "AUROC falls from 2021-06 to 2021-07: it is worse.",
            "undated": 4,
            "rows": [
                {
                    "value": value,
                    "posts": 60,
                    "positives": 20,
                    "metrics": {"macro_f1": make_interval(0.7), "auroc": make_interval(0.8)},
                    "change": change,
                }
                for value, change in (
                    ("2021-06", {}),
                    ("2021-07", {"macro_f1": make_interval(-0.2), "auroc": make_interval(-0.31)}),
                )
            ],
        },
        "by_source": {
            "left_out": {"gazette": 4},
            "rows": [
                {
                    "value": "forum",
                    "posts": 50,
                    "positives": None,
                    "change": {},
                    "metrics": {"macro_f1": make_interval(0.7), "auroc": None},
                },
            ],
        },
    }


def _comparison() -> dict[str, Any]:
    spread = {"mean": 0.75, "deviation": 0.012, "low": 0.7, "high": 0.8}
    return {
        "seeds": 5,
        "rows": [
            {"system": "pupil", "arm": arm, "seeds": 5, "metrics": {"macro_f1": spread}}
            for arm in ("with", "without")
        ],
        "differences": [
            {"a": "pupil/with", "b": "pupil/without", "metric": "macro_f1", "value": 0.021,
             "low": 0.009, "high": 0.033, "p": 0.0002, "p_holm": 0.0013, "permutation_p": 0.0421,
             "mcnemar": [0.21, 1.0], "smallest": 0.0173},
        ],
        "recovery": make_interval(0.57, 0.4),
        "words": "100 posts, 5 seeds. So there is no evidence that the intentions help.",
    }  # fmt: skip


def _ranked() -> list[dict[str, Any]]:
    points = [{"x": x / 10, "y": 0.8137, "low": 0.7, "high": 0.9} for x in range(11)]
    curves = {"roc": points, "precision_recall": points}
    return [{"system": "pupil", "arm": arm, **curves} for arm in ("with", "other-post")]


def _curves() -> dict[str, Any]:
    points = [{"x": x / 10, "y": x / 10, "low": 0.9 * x / 10, "high": 1.0} for x in range(11)]
    return {
        "roc": points,
        "precision_recall": points[::-1],
        "area": {"roc": make_interval(0.8642), "precision_recall": make_interval(0.7531)},
        "confusion": [[51, 9], [13, 27]],
        "labels": ["harmless", "harmful"],
        "learning": [
            {"stage": "task", "step": 0, "epoch": 0, "loss": 0.9, "validation": None},
            {"stage": "task", "step": 9, "epoch": 1, "validation": {"loss": 0.7, "auroc": 0.8}},
        ],
    }


def _overlap() -> dict[str, Any]:
    return {
        "posts": 27,
        "of": 100,
        "examples": ["covid_1"],
        "same_text": 31,
        "same_image": 29,
        "with": {"macro_f1": {"value": 0.84, "low": 0.8, "high": 0.88}},
        "without": {"macro_f1": {"value": 0.81, "low": 0.77, "high": 0.86}},
    }


def _review_desk() -> list[dict[str, Any]]:
    return [
        {
            "capacity": 0.05,
            "reviewed": 18,
            "precision": {"value": 0.83, "low": 0.7, "high": 0.95},
            "missed": {"value": 0.88, "low": 0.8, "high": 0.93},
            "lift": {"value": 2.4, "low": 2.0, "high": 2.9},
        }
    ]


def _calibration() -> dict[str, Any]:
    bins = [{"stated": 0.1, "true": 0.2, "rows": 40}, {"stated": 0.9, "true": None, "rows": 0}]
    return {
        "method": "temperature",
        "by_chance": {"after": {"expected": 0.021, "limit": 0.034, "p": 0.0005}},
        "aim": "macro f1",
        "threshold": 0.4123,
        "ece": {"before": make_interval(0.15), "after": make_interval(0.0617)},
        "reliability": {"before": bins, "after": bins},
        "reached": {"score": 0.7, "recall": None, "met": True},
        "conformal": {
            "level": 0.9,
            "coverage": make_interval(0.91),
            "abstained": make_interval(0.18),
        },
    }


class PageTree(HTMLParser):
    """What a page holds; `faults` are tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self.open: list[str] = []
        self.inside: dict[str, str] = {}
        self.feed(html)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        within = self.open[-1] if self.open else ""
        if within in ("style", "script"):
            self.inside[within] = data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]
