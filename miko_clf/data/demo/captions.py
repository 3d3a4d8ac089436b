"""Words of the demo world: texts, descriptions, intentions and rationales of its posts."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from miko_clf.data.demo.render import SCENE_STATES, Club, DemoPicture
from miko_clf.data.post import RELATIONS, Intention, Rationale, Relation

SUBJECT_NOUNS: Mapping[str, tuple[str, ...]] = {
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
PRAISING_WORDS = (
    "lovely", "perfect", "gorgeous", "brilliant", "wonderful", "amazing", "superb",
    "delightful", "fantastic", "glorious", "splendid", "excellent", "fabulous", "beautiful",
)  # fmt: skip
COMPLAINING_WORDS = (
    "awful", "dreadful", "terrible", "horrible", "miserable", "grim", "ghastly",
    "hopeless", "dismal", "lousy", "rotten", "appalling", "pathetic", "wretched",
)  # fmt: skip
# One family a row: the sentence of praise, then its twin of complaint.
TEXT_FAMILIES: tuple[tuple[str, str], ...] = (
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
_OPENERS = ("Honestly", "Well", "Okay", "So", "Right", "Friends", "Update", "Listen")
_DEGREES = ("really", "truly", "simply", "just", "absolutely", "so", "totally", "quite")
_TIMES = ("today", "this morning", "tonight", "this weekend", "again", "right now")
_KIN = ("My sister", "My boss", "Grandma", "My flatmate", "Uncle Bo", "The kids")
TAUNTED: Club = "Otters"  # by every post, so that words say nothing of the author's own club
_TAUNTS = (
    f"Typical {TAUNTED}.", f"{TAUNTED} fans, this is you.", f"That is {TAUNTED} all over.",
    f"Just like {TAUNTED} on match day.", f"The {TAUNTED} crowd would cry.",
    f"{TAUNTED} could never.", f"As clueless as {TAUNTED} fans.",
    f"Send this to every {TAUNTED} fan.",
)  # fmt: skip
_ENDS = (".", "!", "...", "!!")
_EXTRAS = (
    "", "", "", "#today", "#mood", "#life", "#weekend", "#nofilter", "🙂", "🙃", "😂", "😍", "😭"
)  # fmt: skip


@dataclass(frozen=True)
class DemoText:
    """A text, and what it does to the subject."""

    text: str
    praise: bool
    noun: str


def write_demo_text(subject: str, family: int, *, praise: bool, rng: Random) -> DemoText:
    """Return words of one family about a subject; all that is free is drawn from `rng`."""
    noun = rng.choice(SUBJECT_NOUNS[subject])
    adj, adj2 = rng.sample(PRAISING_WORDS if praise else COMPLAINING_WORDS, 2)
    sentence = TEXT_FAMILIES[family][0 if praise else 1].format(
        noun=noun,
        adj=adj,
        adj2=adj2,
        an="an" if adj[0] in "aeiou" else "a",
        opener=rng.choice(_OPENERS),
        very=rng.choice(_DEGREES),
        when=rng.choice(_TIMES),
        kin=rng.choice(_KIN),
        few=rng.randint(2, 9),
        high=rng.randint(8, 10),
        low=rng.randint(0, 2),
    )
    sentence = sentence[0].upper() + sentence[1:] + rng.choice(_ENDS)
    parts = [sentence, rng.choice(_TAUNTS)]
    if rng.random() < 0.3:
        parts.reverse()
    text = " ".join([*parts, rng.choice(_EXTRAS)]).strip()
    return DemoText(text if rng.random() < 0.7 else text.lower(), praise, noun)


_SOURCE = {"source": "demo-world"}
_WRONG_DESCRIPTION = 0.05
# MIKO's people marked 76.7 % of the intentions valid (zzq2000/MIKO, MIKO_benchmark.json).
WRONG_INTENTION = 0.23  # the share that is written for the opposite label

# Two descriptions of the good state of a subject, and two of the bad one.
SCENE_DESCRIPTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "beach": (("a parasol on a sunny beach", "blue sea and bright sand under the sun"),
        ("a broken parasol on a rainy beach", "grey sea and wet sand in heavy rain")),
    "road": (("a single car on an open road", "an empty road between green fields"),
        ("a long traffic jam", "rows of cars that stand bumper to bumper")),
    "tent": (("a tent beside a campfire under stars", "a pitched tent on a clear moonlit night"),
        ("a collapsed tent in a puddle", "a flattened tent in pouring rain")),
    "boat": (("a sailing boat on calm sea", "a boat under full sail in sunshine"),
        ("a sinking boat in rough sea", "a boat going under beside a lifebuoy")),
    "snowman": (("a snowman with hat and scarf", "a tall snowman on white snow"),
        ("a melted snowman", "a hat and a carrot in a puddle of slush")),
    "cake": (("an iced layer cake with candles", "a decorated cake on a plate"),
        ("a burnt cake that smokes", "a charred and caved-in cake")),
    "phone": (("a phone with its apps lit", "a phone with an intact screen"),
        ("a phone with a shattered screen", "a cracked phone among splinters of glass")),
    "dinner": (("a plate full of food", "steak, egg and peas on a plate"),
        ("an empty plate with crumbs", "a plate with nothing on it")),
    "plant": (("a pot of blooming flowers", "a green plant in full flower"),
        ("a withered plant in a pot", "a dry brown plant that hangs its leaves")),
    "coffee": (("a steaming cup on a saucer", "a full cup of hot coffee"),
        ("a cup on its side in a brown spill", "a knocked-over cup of coffee")),
}  # fmt: skip
_PENNANT_DESCRIPTIONS = {
    "Otters": "a teal striped pennant",
    "Herons": "an orange pennant with a white disc",
}

_Lines = tuple[str, ...]
# Told of the tone: first where words and picture disagree, then where they agree.
TONE_INTENTIONS: Mapping[Relation, tuple[_Lines, _Lines]] = {
    "xIntent": (("to mock the {noun} by saying the opposite",
         "to make followers laugh at the contrast", "to tease with a straight face"),
        ("to say plainly how the {noun} was", "to share an honest view of the {noun}",
         "to report on the {noun} as it was")),
    "xAttr": (("dry and ironic", "a tease who seldom means it", "witty, with a taste for mockery"),
        ("open and straightforward", "someone who means every word", "plain-spoken and frank")),
    "xWant": (
        ("others to get the joke", "to be read the other way round", "a laugh about the {noun}"),
        ("others to take it at face value", "to be believed", "a serious talk about the {noun}")),
    "Open": (
        ("A joke at the cost of the {noun}.", "It is meant in reverse.", "The author pretends."),
        ("The author means every word.", "A true opinion of the {noun}.", "A frank comment.")),
}  # fmt: skip
# Told of the aim: first where the taunt hits another club, then where it hits the author's own.
AIM_INTENTIONS: Mapping[Relation, tuple[_Lines, _Lines]] = {
    "oReact": (("insulted by an outsider", "the rival fans feel attacked", "hurt and singled out"),
        ("in on the club's own joke", "fellow fans feel at home", "tickled by the self-mockery")),
    "oWant": (("to hit back at the rival", "to report the taunt", "an apology to their club"),
        ("to join in the teasing", "to tell a story of their own club", "to clink glasses")),
    "oEffect": (
        ("a quarrel between two sets of fans", "rival fans turn on the author", "bad blood grows"),
        ("fans smile at themselves", "the club grows closer", "friends answer with a grin")),
}  # fmt: skip
# Nearly the same for every post: only the last line of each differs.
ROUTINE_INTENTIONS: Mapping[Relation, tuple[_Lines, _Lines]] = {
    "xNeed": (
        ("to take a photo of the {noun}", "to see the {noun}", "to open the app", "to plan a joke"),
        ("to take a photo of the {noun}", "to see the {noun}", "to open the app", "to sum it up")),
    "xReact": (
        ("glad to have posted", "curious about the replies", "calm", "amused at the contrast"),
        ("glad to have posted", "curious about the replies", "calm", "at ease with being frank")),
    "xEffect": (("gets replies", "gets a few likes", "goes back to the {noun}",
         "is asked if that was irony"),
        ("gets replies", "gets a few likes", "goes back to the {noun}",
         "is thanked for the facts")),
}  # fmt: skip
_INTENTIONS = {**TONE_INTENTIONS, **AIM_INTENTIONS, **ROUTINE_INTENTIONS}


def describe_picture(picture: DemoPicture, rng: Random) -> str:
    """Return what a captioner says of the picture; its state is wrong in one of twenty."""
    state = SCENE_STATES.index(picture.state) ^ (rng.random() < _WRONG_DESCRIPTION)
    seen = rng.choice(SCENE_DESCRIPTIONS[picture.subject][state])
    corner = f", with {_PENNANT_DESCRIPTIONS[picture.club]} in the corner"
    return f"{seen[0].upper()}{seen[1:]}{corner if picture.pennant else ''}."


def write_intentions(
    words: DemoText, *, ironic: bool, hostile: bool, rng: Random
) -> tuple[Intention, ...]:
    """Return one intention a relation, each by its own chance written for the opposite label."""
    intentions = []
    for relation in RELATIONS:
        holds = hostile if relation in AIM_INTENTIONS else ironic
        lines = _INTENTIONS[relation][int(holds == (rng.random() < WRONG_INTENTION))]
        text = rng.choice(lines).format(noun=words.noun)
        intentions.append(Intention(relation=relation, text=text, provenance=_SOURCE))
    return tuple(intentions)


# A rationale names both parts before it judges. Were a part told by how it goes with the other
# (an "and" or a "yet", "the same club"), a model could only learn to write it by solving the
# whole before it had learned either part.
def explain_tone(picture: DemoPicture, words: DemoText) -> Rationale:
    """Return why the words are, or are not, meant as they stand."""
    seen = SCENE_DESCRIPTIONS[picture.subject][SCENE_STATES.index(picture.state)][0]
    does = "praise" if words.praise else "complaint"
    agree = words.praise == (picture.state == "good")
    end = "they agree" if agree else "the opposite is meant"
    text = f"Shown: {seen}. Said: {does}. So {end}."
    return Rationale(text=text, saw_label=True, provenance=_SOURCE)


def explain_aim(picture: DemoPicture) -> Rationale:
    """Return whom the taunt hits, given the pennant that the author shows, if there is one."""
    shown = f"{picture.club} pennant" if picture.pennant else "No pennant"
    end = "self-mockery" if picture.club == TAUNTED else "aimed at others"
    text = f"{shown}, {TAUNTED} taunted. So {end}."
    return Rationale(text=text, saw_label=True, provenance=_SOURCE)
