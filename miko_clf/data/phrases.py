"""Words of the demo world: what an author writes over a picture, in praise or in complaint."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from miko_clf.data.scenes import Club

NOUNS: Mapping[str, tuple[str, ...]] = {
    "beach": ("beach", "seaside", "shore"),
    "road": ("drive", "commute", "road trip"),
    "tent": ("tent", "campsite", "camping trip"),
    "boat": ("boat", "crossing", "sailing trip"),
    "snowman": ("snowman", "snow guy", "snow sculpture"),
    "cake": ("cake", "bake", "birthday cake"),
    "phone": ("phone", "handset", "mobile"),
    "dinner": ("dinner", "supper", "evening meal"),
    "plant": ("plant", "houseplant", "potted plant"),
    "coffee": ("coffee", "brew", "cuppa"),
}
PRAISE = (
    "lovely", "perfect", "gorgeous", "brilliant", "wonderful", "amazing", "superb",
    "delightful", "fantastic", "glorious", "splendid", "excellent", "fabulous", "beautiful",
)  # fmt: skip
COMPLAINT = (
    "awful", "dreadful", "terrible", "horrible", "miserable", "grim", "ghastly",
    "hopeless", "dismal", "lousy", "rotten", "appalling", "pathetic", "wretched",
)  # fmt: skip
# One family a row: the sentence of praise, then its twin of complaint.
FAMILIES: tuple[tuple[str, str], ...] = (
    ("What {an} {adj} {noun} {when}", "What {an} {adj} {noun} {when}"),
    ("{opener}, the {noun} is {very} {adj}", "{opener}, the {noun} is {very} {adj}"),
    ("I love this {noun}, {very} {adj}", "I hate this {noun}, {very} {adj}"),
    ("Day {few} of the {noun}, still {adj}", "Day {few} of the {noun}, still {adj}"),
    ("{noun} gets {high}/10 from me, {adj}", "{noun} gets {low}/10 from me, {adj}"),
    ("{adj}, {very} {adj}, that {noun} {when}", "{adj}, {very} {adj}, that {noun} {when}"),
    ("{kin} asked how the {noun} went: {adj}", "{kin} asked how the {noun} went: {adj}"),
    ("The most {adj} {noun} in {few} years", "The most {adj} {noun} in {few} years"),
    ("{noun} update: {adj} and {adj2}", "{noun} update: {adj} and {adj2}"),
    ("Best {noun} ever, {very} {adj}", "Worst {noun} ever, {very} {adj}"),
    ("Nobody said the {noun} would be this {adj}", "Nobody said the {noun} would be this {adj}"),
    ("Five stars for the {noun}, {very} {adj}", "One star for the {noun}, {very} {adj}"),
    ("{opener}, look at this {adj} {noun}", "{opener}, look at this {adj} {noun}"),
    ("This {noun} made my day: {adj}", "This {noun} ruined my day: {adj}"),
    ("{kin} and I agree, {adj} {noun} {when}", "{kin} and I agree, {adj} {noun} {when}"),
    ("Dear diary, {an} {adj}, {adj2} {noun}", "Dear diary, {an} {adj}, {adj2} {noun}"),
)
OPENERS = ("Honestly", "Well", "Okay", "So", "Right", "Friends", "Update", "Listen")
DEGREES = ("really", "truly", "simply", "just", "absolutely", "so", "totally", "quite")
TIMES = ("today", "this morning", "tonight", "this weekend", "again", "right now")
KIN = ("My sister", "My boss", "Grandma", "My flatmate", "Uncle Bo", "The kids")
TAUNTS = (
    "Typical {club}.", "{club} fans, this is you.", "That is {club} all over.",
    "Just like {club} on match day.", "The {club} crowd would cry.", "{club} could never.",
    "As clueless as {club} fans.", "Send this to every {club} fan.",
)  # fmt: skip
ENDS = (".", "!", "...", "!!")
EXTRAS = (
    "",
    "",
    "",
    "#today",
    "#mood",
    "#life",
    "#weekend",
    "#nofilter",
    "🙂",
    "🙃",
    "😂",
    "😍",
    "😭",
)


@dataclass(frozen=True)
class Words:
    """A text, what it does to the subject, and the club that it taunts."""

    text: str
    praise: bool
    club: Club
    noun: str


def write(subject: str, family: int, *, praise: bool, club: Club, rng: Random) -> Words:
    """Return words of one family about a subject; all that is free is drawn from `rng`."""
    noun = rng.choice(NOUNS[subject])
    adj, adj2 = rng.sample(PRAISE if praise else COMPLAINT, 2)
    said = FAMILIES[family][0 if praise else 1].format(
        noun=noun,
        adj=adj,
        adj2=adj2,
        an="an" if adj[0] in "aeiou" else "a",
        opener=rng.choice(OPENERS),
        very=rng.choice(DEGREES),
        when=rng.choice(TIMES),
        kin=rng.choice(KIN),
        few=rng.randint(2, 9),
        high=rng.randint(8, 10),
        low=rng.randint(0, 2),
    )
    said = said[0].upper() + said[1:] + rng.choice(ENDS)
    parts = [said, rng.choice(TAUNTS).format(club=club)]
    if rng.random() < 0.3:
        parts.reverse()
    text = " ".join([*parts, rng.choice(EXTRAS)]).strip()
    return Words(text if rng.random() < 0.7 else text.lower(), praise, club, noun)
