"""Curves over seeds and cards of mistakes: nothing of one covers or replaces another."""

import pytest
from reported import Tree, report

from miko_clf.evaluate.page import page


def test_more_than_eight_curves_take_further_drawings_and_a_missing_one_is_left_out() -> None:
    whole = report()
    (curve, _) = whole["findings"]["ranked"]
    whole["findings"]["ranked"] = [curve | {"arm": f"arm-{n}"} for n in range(9)]
    whole["findings"]["ranked"][3] |= {"roc": [], "precision_recall": []}
    whole["findings"]["ranked"][4] |= {"roc": []}
    tree = Tree(page(whole))
    assert tree.faults == []
    assert "drawn around the first" in tree.text
    assert "arm-8" in tree.text
    assert "arm-3" not in tree.text
    whole["findings"]["ranked"].append(curve | {"arm": "arm-9"})
    ids = [found["id"] for tag, found in Tree(page(whole)).found if "id" in found]
    assert len(ids) == len(set(ids))
    assert sum(str(each).startswith("ranked-") for each in ids) == 8


def test_what_explains_a_mistake_takes_nothing_from_its_card() -> None:
    whole = report()
    findings = whole["findings"]
    findings["attribution"]["rows"][0] |= {"image": 0.005, "text": None, "full": 1.2}
    findings["neighbours"][0] |= {"image": None, "text": None}
    tree = Tree(page(whole))
    assert [each["src"] for each in tree.all("img")] == [findings["mistakes"][0]["image"]]
    for said in ("first words", "mocking", "a training text"):
        assert said in tree.text


@pytest.mark.parametrize(
    ("decided", "probability", "stated"),
    [("harmful", 0.93, "93.0 % ≥ 41.2 %"), ("harmless", 0.691, "30.9 % < 41.2 %")],
)
def test_a_decision_stands_beside_the_probability_that_the_threshold_is_for(
    decided: str, probability: float, stated: str
) -> None:
    whole = report()
    whole["findings"]["mistakes"][0] |= {"decided": decided, "probability": probability}
    assert stated in Tree(page(whole)).text
    whole["positive"] = None
    assert f"at {100 * probability:.1f} %" in Tree(page(whole)).text
