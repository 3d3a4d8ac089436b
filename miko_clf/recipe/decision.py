"""The section of a recipe that says how logits become probabilities, and these decisions."""

from typing import Literal

from pydantic import Field

from miko_clf.recipe.section import Section

AimName = Literal["macro_f1", "f1", "recall_at_precision", "recall_at_false_positive_rate", "cost"]


class Decision(Section):
    """What is fitted on validation once the weights are learned."""

    calibration: Literal["temperature", "platt", "isotonic"] = "temperature"
    """One factor for all logits; a factor and a shift a label; a rising line (two labels)."""
    aim: AimName = "macro_f1"
    """What the thresholds are the best for, of two labels or of any number that may hold."""
    precision: float = Field(default=0.9, gt=0, le=1)
    """Least precision at which aim recall_at_precision looks for the most recall."""
    false_positive_rate: float = Field(default=0.05, ge=0, lt=1)
    """Largest share of the negatives that aim recall_at_false_positive_rate lets through."""
    false_positive_cost: float = Field(default=1.0, gt=0)
    """What a false positive costs (aim cost), in any unit."""
    false_negative_cost: float = Field(default=1.0, gt=0)
    """What a false negative costs (aim cost), in the same unit."""
    conformal: float | None = Field(default=None, gt=0, lt=1)
    """Share of posts whose label a conformal set is to hold; null to abstain from none."""

    @property
    def value(self) -> float | None:
        """The number that the aim keeps to, none where it has none.

        Of aim cost it is the probability at which both errors cost the same (Elkan, IJCAI 2001).
        """
        costs = self.false_positive_cost + self.false_negative_cost
        return {
            "recall_at_precision": self.precision,
            "recall_at_false_positive_rate": self.false_positive_rate,
            "cost": self.false_positive_cost / costs,
        }.get(self.aim)
