"""The names that `import miko_clf` gives, and what they take."""

import json
from pathlib import Path

import pytest

import miko_clf
from miko_clf import pipeline


class _Enough(Exception):  # noqa: N818
    """Training need not go further."""


def test_every_public_name_is_there_and_says_what_it_is_for() -> None:
    assert set(miko_clf.__all__) == set(dir(miko_clf))
    for name in set(miko_clf.__all__) - {"__version__"}:
        value = getattr(miko_clf, name)
        assert callable(value)
        assert value.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'gather'"):
        _ = miko_clf.gather


def test_fit_takes_the_name_of_a_recipe_a_folder_and_a_seed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise _Enough

    monkeypatch.setattr(pipeline, "train_stage", stop)
    for seed, wanted in ((None, 0), (7, 7)):
        out = tmp_path / str(seed)
        with pytest.raises(_Enough):
            miko_clf.fit("tiny", str(world / "sarcasm"), str(out), seed=seed)
        facts = json.loads((tmp_path / f"{seed}.training" / "run.json").read_text())
        assert facts["recipe"]["seed"] == wanted
