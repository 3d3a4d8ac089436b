"""What every section of a recipe is: frozen, and closed to keys that it does not know."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
