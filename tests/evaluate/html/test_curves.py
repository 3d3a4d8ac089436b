"""The curves of a page: what was fitted to its optimum shows what was tried, and no epoch."""

from miko_clf.evaluate.html.curves import show_training
from tests.support.full_report import make_report

PROBE = {
    "stage": "probe",
    "step": 1,
    "epoch": 1,
    "validation": {"loss": 0.5, "auroc": 0.8},
    "fits": [
        {
            "problem": "tone",
            "strengths": {"vectors": 0.001},
            "shares": {"vectors": 1.0},
            "losses": {"vectors": {"0.0001": 0.61, "0.001": 0.52, "0.01": 0.57}},
        }
    ],
}


def draw(lines: list[dict]) -> str:
    section = show_training({"learning": lines}, make_report())
    assert section is not None
    return str(section.html())


def test_a_fitted_classifier_shows_the_held_out_loss_of_every_strength() -> None:
    shown = draw([PROBE])
    assert "Held-out loss, tone" in shown
    assert "log loss over strength C" in shown
    assert "from 0.61 to 0.57" in shown
    assert "chose the epoch" not in shown
    assert "over steps" not in shown.replace("Validation over steps", "")


def test_a_mixture_shows_its_training_and_its_base() -> None:
    epochs = [
        {"stage": "task", "step": n, "epoch": n, "validation": {"loss": 0.9 - n / 10, "auroc": 0.7}}
        for n in (1, 2)
    ]
    shown = draw([*epochs, PROBE])
    assert "Held-out loss, tone" in shown
    assert "Loss, task stage" in shown
    assert "probe stage" not in shown
    assert "chose the epoch" in shown
