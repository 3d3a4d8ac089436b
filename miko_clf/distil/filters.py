"""Cheap checks of what an LLM wrote: a text is kept, or refused for a named reason."""

import re
from collections import Counter
from collections.abc import Sequence

from rapidfuzz import fuzz

from miko_clf.data.post import Intention, Post
from miko_clf.data.text import compile_label_pattern
from miko_clf.distil.relations import has_stem, strip_relation_stem

EMPTY_TEXT = "empty"
_SHORT = "too short"
_STEM_MISSING = "relation stem missing"
_REFUSAL = "refusal"
_COPY = "copy of the post"
_LOOP = "repeats itself"
_LABEL_NAMED = "names the label"
_PERSON = "PersonX"
_DUPLICATE = "near-duplicate"
_SPREAD = "same text in three relations"

_NEAR = 92.0  # percent (rapidfuzz ratio) from which two texts count as one
_QUOTED = 8  # words that a text must share with the post, in a row and whole, to be called a copy
_STUCK = re.compile(r"(\w{1,8}?)\1{11,}")
_REFUSAL_WORDS = 80
_STRAIGHT = str.maketrans("\u2018\u2019\u201c\u201d`", "''\"\"'")
_ASKED = (
    r"assist|help(?! (?:but|it|laugh|feel|think))|provide|generate|create|produce|write|answer|"
    r"discuss|describe|analy[sz]e|identify|infer|guess|speculate|comply|fulfil|complete|continue|"
    r"comment|respond|process|engage|participate|support|interpret|do (?:that|this)|"
    r"(?:see|view) (?:the|this|any|an) (?:image|picture|photo|post)"
)
_I = r"(?:i|we)"
_I_AM = r"(?:i am|i'm|we are|we're)"
_NOT = r"(?:can't|cannot|can not|won't|will not|couldn't|could not|do not|don't|must not|mustn't)"
# At the start of an answer.
_OPENINGS = (
    rf"{_I_AM} (?:so |very |really |truly |deeply )?sorry,? (?:but|however)\b",
    rf"(?:{_I_AM} )?(?:so |very |really )?sorry[,.:;]? (?:but |as |that )?(?:{_I} {_NOT}|{_I_AM})",
    rf"{_I_AM} (?:so |very |really )?sorry(?: about that| for (?:any|the inconvenience))?[.!]",
    rf"(?:{_I} (?:do |must )?|{_I_AM} |my |our )apologi[sz]e|(?:my |our )?(?:sincere )?apologies\b",
    rf"(?:{_I_AM} )?(?:unable|not able) to (?:\w+ ){{0,2}}?(?:{_ASKED})\b",
)
# At the start of an answer or of any clause of it.
_CLAUSES = (
    rf"{_I} (?:really |just |simply )?{_NOT} (?:\w+ ){{0,3}}?(?:{_ASKED})\b",
    rf"{_I_AM} (?:unable|not (?:able|going|allowed|permitted)) to (?:\w+ ){{0,2}}?(?:{_ASKED})\b",
    r"(?:as|i am|i'm) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model)"
    r"(?: language model| assistant| model| system)?(?:[,.]| (?:i|and|so|my|without|that)\b|$)",
    rf"{_I_AM} (?:not |un)comfortable (?:\w+ing|with)\b|{_I} (?:don't|do not) feel comfortable\b",
    rf"{_I} (?:must |have to |need to |would |will )?(?:respectfully |politely )?decline\b",
    rf"{_I}(?:'d| would) (?:rather|prefer) not\b",
    r"(?:this|the|your) (?:request|content|image|post|prompt|material) (?:\w+ )?"
    r"(?:violates?|goes against|is against|conflicts with|breaches)"
    r" (?:\w+ ){0,3}?(?:polic|guideline|rules|terms|standards)",
    rf"(?:that is|that's|this is|it is|it's) not something (?:that )?{_I}\b",
)
_REFUSES = re.compile(
    rf"^(?:(?:hi|hello|well|oh|unfortunately|regrettably|thank you[^.,]*)[,.!]* )?"
    rf"(?:{'|'.join(_OPENINGS)})"
    rf"|(?:^|[.!?,;:] |\b(?:but|so|and|therefore|however|unfortunately) )(?:{'|'.join(_CLAUSES)})"
)


def find_faults(
    intentions: Sequence[Intention], post: Post, labels: Sequence[str] = ()
) -> list[str]:
    """Return for each intention why it is refused, or '' where it is kept.

    Of texts that are nearly the same under one relation, and of one text under three relations
    or more, the first is kept. `labels` are class names that no intention may speak of.
    """
    label_pattern = compile_label_pattern(labels)
    faults = [_find_intention_fault(intention, post, label_pattern) for intention in intentions]
    bare = [_normalize(strip_relation_stem(item.relation, item.text)) for item in intentions]
    whole = [_normalize(intention.text) for intention in intentions]
    for i, intention in enumerate(intentions):
        sound = [j for j in range(i) if not faults[j]]
        twins = [j for j in sound if intentions[j].relation == intention.relation]
        is_near_twin = any(_is_near(bare[i], bare[j]) for j in twins)
        if not faults[i] and (is_near_twin or whole[i] in (whole[j] for j in sound)):
            faults[i] = _DUPLICATE
    for i in _find_spread(intentions, bare, faults):
        faults[i] = _SPREAD
    return faults


def find_text_fault(text: str, post: Post) -> str:
    """Return why a rationale or a description is refused, or '' where it is kept.

    A description is compared with the one that the post already has: pass a post without it.
    Talk of labels is no fault here: pictures show them, and arguments are about them.
    """
    if not text.strip():
        return EMPTY_TEXT
    if is_refusal(text):
        return _REFUSAL
    if text.isascii() and len(re.findall(r"\w+", text)) < 3:
        return _SHORT
    fault = _find_fault(text, text, post, compile_label_pattern(()))
    return "" if fault == _LABEL_NAMED else fault


def is_refusal(text: str) -> bool:
    """Say whether a short English answer is an apology or a refusal instead of what was asked.

    What such an answer quotes from a post in double quotes is not looked at.
    """
    plain = text.translate(_STRAIGHT).lower().strip(" \t\r\n*_\"'")
    plain = " ".join(re.sub(r'"[^"]*"', " ", plain).split())
    return len(plain.split()) <= _REFUSAL_WORDS and _REFUSES.search(plain) is not None


def _find_intention_fault(intention: Intention, post: Post, label_pattern: re.Pattern[str]) -> str:
    if not intention.text.strip():
        return EMPTY_TEXT
    rest = strip_relation_stem(intention.relation, intention.text)
    if is_refusal(intention.text) or is_refusal(rest):
        return _REFUSAL
    if not has_stem(intention.relation, intention.text):
        return _STEM_MISSING
    if sum(map(str.isalnum, rest)) < 2:
        return _SHORT
    return _find_fault(intention.text, rest, post, label_pattern)


def _find_fault(text: str, own: str, post: Post, label_pattern: re.Pattern[str]) -> str:
    """Return what is wrong with a text of which `own` is the part that no prompt gave."""
    if _is_copy(own, post.text) or _is_copy(own, post.description):
        return _COPY
    if is_repetitive(text):
        return _LOOP
    if label_pattern.search(text):
        return _LABEL_NAMED
    if re.search(r"\bperson ?[xyz]\b", text, re.IGNORECASE):
        return _PERSON
    return ""


def _is_copy(text: str, source: str | None) -> bool:
    """Say whether a text is the source, nearly so, or a passage of it."""
    ours, theirs = _normalize(text), _normalize(source or "")
    if not ours or not theirs:
        return False
    passage = len(ours.split()) >= _QUOTED and f" {ours} " in f" {theirs} "
    return passage or (len(theirs.split()) > 1 and _is_near(ours, theirs))


def is_repetitive(text: str) -> bool:
    """Say whether a text is stuck: the same words, or characters, over and over."""
    words = _normalize(text).split()
    if len(words) - len(set(words)) < 4:  # too few repeats for any of what follows
        return bool(_STUCK.search(text))
    for size in range(1, 9):
        times = 5 if size == 1 else 3
        run = 0
        for i in range(size, len(words)):
            run = run + 1 if words[i] == words[i - size] else 0
            if run >= size * (times - 1):
                return True
    fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    often = max(fours.values(), default=0)
    return (often > 4 and often * 4 > 0.4 * len(words)) or bool(_STUCK.search(text))


def _find_spread(intentions: Sequence[Intention], bare: list[str], faults: list[str]) -> list[int]:
    """Return the places that repeat an earlier text where three relations or more share it."""
    extra: list[int] = []
    for i, text in enumerate(bare):
        if faults[i] or i in extra:
            continue
        same = [j for j in range(i, len(bare)) if not faults[j] and _is_near(text, bare[j])]
        if len({intentions[j].relation for j in same}) >= 3:
            extra += same[1:]
    return extra


def _is_near(one: str, other: str) -> bool:
    return one == other or fuzz.ratio(one, other, score_cutoff=_NEAR) > 0


def _normalize(text: str) -> str:
    """Return the words of a text, without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
