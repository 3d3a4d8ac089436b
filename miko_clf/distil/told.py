"""What the answers for a post say, stage by stage, before anything is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from miko_clf.data.adapters.miko import key_information
from miko_clf.data.post import RELATIONS, KeyInformation, Post, Rationale, Relation
from miko_clf.distil import answer as answers
from miko_clf.distil import numbered
from miko_clf.distil.answer import Answer, read
from miko_clf.distil.kept import Ended, Kept, provenance
from miko_clf.distil.sieve import LABEL, fault_of_text

_FORMS: Mapping[str, tuple[type[Answer], ...]] = {
    "description": (answers.Described,),
    "key_information": (answers.Keys,),
    "intentions": (answers.Ten,),
    "one_call": (answers.Seen, answers.Thought),
    **dict.fromkeys(RELATIONS, (answers.Intended,)),
}
_WHOLE = ("one_call", "intentions")
MISSING = "missing"


class Told(NamedTuple):
    """Description and key information, the completion of each relation with the call that gave
    it, and why the other relations have none: a status, or `missing` from an answer."""

    description: str | None
    key_information: KeyInformation | None
    completions: Mapping[Relation, tuple[str, Kept]]
    absent: Mapping[str, str]


def told(calls: Sequence[Kept], end: Ended | None, *, pictured: bool) -> Told:
    """Return what the calls of one sample of the task of intentions say.

    In one call for everything, what a model says that it saw counts only of a post that is
    `pictured`. Without an `end` nothing was asked, and nothing is absent.
    """
    description: str | None = None
    keys: KeyInformation | None = None
    completions: dict[Relation, tuple[str, Kept]] = {}
    reasons: dict[str, str] = {}
    for call in calls:
        if call.status != "ok":
            names = RELATIONS if call.stage in _WHOLE else (call.stage,)
            reasons |= dict.fromkeys(names, call.status or "failed")
            continue
        fields = _fields(call)
        if pictured or call.stage != "one_call":
            description = fields.get("description") or description
        keys = fields.get("key_information") or keys
        completions |= {name: (text, call) for name, text in fields["intentions"].items()}
    other = "failed" if end is None else MISSING if end.status == "ok" else end.status
    absent: dict[str, str] = {
        name: reasons.get(name, other) for name in RELATIONS if name not in completions
    }
    return Told(description, keys, completions, absent if end else {})


def described(call: Kept) -> str | None:
    """Return the description that an answer gives, if it gives one."""
    text: str | None = _fields(call).get("description") if call.status == "ok" else None
    return text


def argued(calls: Sequence[Kept], post: Post) -> tuple[Rationale | None, str]:
    """Return the rationale that the calls of one sample give, or none and why not.

    Of a debate every side must have been argued: which one is missing would tell the label.
    """
    said = [call for call in calls if call.stage != "description"]
    bad = next((call for call in said if call.status != "ok"), None)
    if not said or bad is not None:
        return None, bad.status if bad and bad.status else MISSING
    texts = {call.stage.removeprefix("debate "): _reasoned(call) for call in said}
    for text in texts.values():
        if fault := unsound(text, post):
            return None, fault
    sides = [f"The case for {label}: {text}" for label, text in sorted(texts.items())]
    debated = said[0].stage.startswith("debate ")
    text = "\n".join(sides) if debated else texts["rationale"]
    saw_label = any(call.saw_label for call in said)
    return Rationale(text=text, saw_label=saw_label, provenance=_joint(said)), ""


def unsound(text: str, post: Post) -> str:
    """Return why a rationale or a description is no good, or ''.

    Talk of labels is no fault here: pictures show them, and arguments are about them.
    """
    fault = fault_of_text(text, post)
    return "" if fault == LABEL else fault


def _joint(calls: Sequence[Kept]) -> dict[str, Any]:
    """Return the provenance of calls together, values apart where they differ."""
    sources = [provenance(call) for call in calls]
    keys = dict.fromkeys(key for source in sources for key in source)
    values = {key: list(dict.fromkeys(source.get(key) for source in sources)) for key in keys}
    return {
        key: each[0] if len(each) == 1 else ", ".join(map(str, each))
        for key, each in values.items()
    }


def _reasoned(call: Kept) -> str:
    found = read(call.raw, answers.Reasoned)
    return found.rationale if isinstance(found, answers.Reasoned) else ""


def _fields(call: Kept) -> dict[str, Any]:
    """Return what an answer says: description, key_information, intentions by relation."""
    if call.published:
        return _published(call)
    found: Any = next(
        (one for form in _FORMS[call.stage] if isinstance(one := read(call.raw, form), Answer)),
        None,
    )
    if isinstance(found, answers.Intended):
        return {"intentions": {call.stage: found.intention}}
    keys = found if isinstance(found, answers.Keys) else getattr(found, "key_information", None)
    ten = found if isinstance(found, answers.Ten) else getattr(found, "intentions", None)
    return {
        "description": getattr(found, "description", None),
        "key_information": keys and KeyInformation.model_validate(keys.model_dump()),
        "intentions": {name: getattr(ten, name) for name in RELATIONS} if ten else {},
    }


def _published(call: Kept) -> dict[str, Any]:
    whole = call.stage == "intentions"
    keyed = call.stage == "key_information"
    return {
        "description": call.raw if call.stage == "description" else None,
        "key_information": key_information(call.raw) if keyed else None,
        "intentions": numbered.placed(call.raw).texts if whole else {},
    }
