"""Letters in disguise, and back: other scripts, wide and circled forms, invisible and struck ones.

A text that no one disguised stays as it is, byte by byte, in whatever script: only words that mix
scripts are brought to one, and only marks that no orthography has are taken away.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

# Bidirectional controls; the first, right-to-left override, shows letters in reverse.
_OVERRIDDEN = re.compile("\u202e([^\u202a-\u202e\u2066-\u2069\n]*)\u202c?")
_BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_INVISIBLE = re.compile("[\u00ad\u034f\u180e\u200b-\u200d\u2060-\u2064\ufeff]+")
# Strokes through, above and below letters, and three or more marks on one.
_STROKES = re.compile(
    "(?<=[^\\W_]|\\s)[\u0305\u0332-\u0338\u033f\u20d2\u20d3\u20d8-\u20da\u20e5\u20e6\u20ea\u20eb]+"
)
_HEAPED = re.compile("(?<=[A-Za-z0-9])[\u0300-\u036f]{3,}")
_WORDS = re.compile(r"[^\W\d_]+")
_FEWEST_LETTERS = 3  # of a word that is brought to one script, and of a run of styled letters
_ALPHABETS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU")
# Letters by which a Latin one is written in another script, the everyday ones first.
_LETTERS = {
    "CYRILLIC": [*range(0x410, 0x450), *range(0x400, 0x410), *range(0x450, 0x530)],
    "GREEK": [*range(0x391, 0x3CA), *range(0x3D0, 0x400)],
}
_STYLED_NAME = re.compile(
    r"(?:NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER|LATIN LETTER SMALL CAPITAL) ([A-Z])$"
)


def fold_disguises(text: str) -> str:
    """Return a text with its disguised letters as the plain ones that they stand for.

    Undone are right-to-left override and other controls where no letter runs to the left, strokes
    and heaped marks, invisible characters beside letters of an alphabet, full-width and
    mathematical letters, runs of circled, raised or small capital ones, and look-alikes (Unicode
    UTS 39). A word of two scripts is brought to the one that all of its letters have a look-alike
    in, the more frequent one of the text where that is either. A word of one script stays, unless
    the text has Latin words and no letter of another alphabet without a Latin look-alike.
    """
    if text.isascii():
        return text
    text = _HEAPED.sub("", _STROKES.sub("", _undo_controls(text)))
    text = _INVISIBLE.sub(_drop_beside_letters, text)
    text = _fold_styled_runs("".join(_fold_form(letter) for letter in text))
    return text if text.isascii() else _fold_look_alikes(text)


def _undo_controls(text: str) -> str:
    if any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in text):
        return text
    return _BIDI_CONTROLS.sub("", _OVERRIDDEN.sub(lambda found: found[1][::-1], text))


def _drop_beside_letters(found: re.Match[str]) -> str:
    """Return nothing between letters of alphabets, or a letter and a blank; else what was found.

    So the joiners stay that Arabic, Indic scripts and emoji are written with.
    """
    text = found.string
    sides = [text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]]
    letters = [bool(side) and _is_alphabetic(side) for side in sides]
    plain = [not side or side.isspace() or side.isascii() for side in sides]
    bare = all(letter or blank for letter, blank in zip(letters, plain, strict=True))
    return "" if any(letters) and bare else found[0]


@cache
def _is_alphabetic(letter: str) -> bool:
    """Say whether a letter, or what it is a form of, is of an alphabet that disguises are in."""
    return _find_script(letter) in _ALPHABETS or _fold_form(letter) != letter or _is_styled(letter)


@cache
def _find_script(letter: str) -> str:
    """Return the first word of a letter's name, which is that of its script."""
    return unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""


@cache
def _fold_form(letter: str) -> str:
    """Return the plain letter or digit of a full-width or mathematical one, else the same."""
    kind, _, _ = unicodedata.decomposition(letter).partition(" ")
    plain = unicodedata.normalize("NFKC", letter)
    folds = kind in ("<wide>", "<font>") and plain.isascii() and plain.isalnum() and len(plain) == 1
    return plain if folds else letter


def _is_styled(letter: str) -> bool:
    return _read_styled(letter) != ""


@cache
def _read_styled(letter: str) -> str:
    """Return the plain letter of a circled, raised, lowered or small capital one, else nothing."""
    kind, _, _ = unicodedata.decomposition(letter).partition(" ")
    if kind in ("<circle>", "<super>", "<sub>", "<square>"):
        plain = unicodedata.normalize("NFKC", letter)
    else:
        named = _STYLED_NAME.match(unicodedata.name(letter, ""))
        plain = named[1].lower() if named else ""
    return plain if len(plain) == 1 and plain.isascii() and plain.isalpha() else ""


def _fold_styled_runs(text: str) -> str:
    """Return a text in which runs of styled letters are plain; one or two alone are no disguise."""
    letters, start = list(text), 0
    for at in range(len(text) + 1):
        if at < len(text) and _is_styled(text[at]):
            continue
        if at - start >= _FEWEST_LETTERS:
            letters[start:at] = [_read_styled(letter) for letter in text[start:at]]
        start = at + 1
    return "".join(letters)


def _fold_look_alikes(text: str) -> str:
    words = _WORDS.findall(text)
    scripts = [frozenset(map(_find_script, word)) for word in words]
    sizes: Counter[str] = Counter()
    for word, own in zip(words, scripts, strict=True):
        if len(own) == 1:
            sizes[next(iter(own))] += len(word)
    strangers = [c for word in words for c in word if _find_script(c) in _ALPHABETS[1:]]
    whole = bool(sizes["LATIN"]) and all(map(_find_latin, strangers))

    def fold(found: re.Match[str]) -> str:
        word = found[0]
        own = set(map(_find_script, word))
        if len(word) < _FEWEST_LETTERS or own <= {"LATIN"} or not own <= set(_ALPHABETS):
            return word
        if "LATIN" not in own and not (whole and len(own) == 1):
            return word
        return _bring_to_one_script(word, own, sizes)

    return _WORDS.sub(fold, text)


def _bring_to_one_script(word: str, own: set[str], sizes: Mapping[str, int]) -> str:
    """Return a word in Latin or in the one other script that it has, the same where in neither."""
    latin = [c if _find_script(c) == "LATIN" else _find_latin(c) for c in word]
    others = own - {"LATIN"}
    other = next(iter(others)) if len(others) == 1 and "LATIN" in own else ""
    table = _list_look_alikes(other) if other else {}
    native = [c if _find_script(c) == other else table.get(c, "") for c in word]
    if all(latin) and not (all(native) and sizes.get(other, 0) > sizes.get("LATIN", 0)):
        return "".join(latin)
    return "".join(native) if all(native) else word


@cache
def _find_latin(letter: str) -> str:
    """Return the Latin letter that a letter of another script looks like, nothing for none."""
    library = import_module("confusable_homoglyphs.confusables")  # reads a megabyte of table
    entries = library.is_confusable(letter, greedy=True) or [{"homoglyphs": []}]
    alike = [entry["c"] for entry in entries[0]["homoglyphs"]]
    plain = next((c for c in alike if len(c) == 1 and c.isascii() and c.isalpha()), "")
    return "I" if plain == "l" and letter.isupper() else plain


@cache
def _list_look_alikes(script: str) -> Mapping[str, str]:
    """Return Latin letters and their look-alikes in another script, of the same case."""
    table: dict[str, str] = {}
    for code in _LETTERS.get(script, ()):
        letter = chr(code)
        latin = _find_latin(letter) if letter.isalpha() else ""
        if latin and latin.isupper() == letter.isupper():
            table.setdefault(latin, letter)
    return table


def _widen(word: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) for letter in word)


def _mix_scripts(word: str) -> str:
    """Return a word in Cyrillic as far as that looks the same, with a Latin letter left in it."""
    table = _list_look_alikes("CYRILLIC")
    mixed = [table.get(letter, letter) for letter in word]
    return "".join(mixed if any(map(str.isascii, mixed)) else [*mixed[:-1], word[-1]])


DISGUISES: Mapping[str, Callable[[str], str]] = {
    "full width": _widen,
    "zero width": "\u200b".join,
    "homoglyphs": _mix_scripts,
    "struck through": lambda word: "".join(f"{letter}\u0336" for letter in word),
    "backwards": lambda word: f"\u202e{word[::-1]}\u202c",
}
"""Ways in which people write a word of Latin letters past a filter, by name."""
