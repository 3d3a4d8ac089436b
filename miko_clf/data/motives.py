"""What is told of a demo post beside its words: description, intentions and rationale."""

from collections.abc import Mapping
from random import Random

from miko_clf.data.phrases import Words
from miko_clf.data.post import RELATIONS, Intention, KeyInformation, Rationale, Relation
from miko_clf.data.scenes import STATES, Picture

SOURCE = {"source": "demo-world"}
WRONG_DESCRIPTION = 0.05
# MIKO's people marked 76.7 % of the intentions valid (zzq2000/MIKO, MIKO_benchmark.json).
WRONG_INTENTION = 0.23

SHOWN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "beach": (
        ("a parasol on a sunny beach", "blue sea and bright sand under the sun"),
        ("a broken parasol on a rainy beach", "grey sea and wet sand in heavy rain"),
    ),
    "road": (
        ("a single car on an open road", "an empty road between green fields"),
        ("a long traffic jam", "rows of cars that stand bumper to bumper"),
    ),
    "tent": (
        ("a tent beside a campfire under stars", "a pitched tent on a clear moonlit night"),
        ("a collapsed tent in a puddle", "a flattened tent in pouring rain"),
    ),
    "boat": (
        ("a sailing boat on calm sea", "a boat under full sail in sunshine"),
        ("a sinking boat in rough sea", "a boat going under beside a lifebuoy"),
    ),
    "snowman": (
        ("a snowman with hat and scarf", "a tall snowman on white snow"),
        ("a melted snowman", "a hat and a carrot in a puddle of slush"),
    ),
    "cake": (
        ("an iced layer cake with candles", "a decorated cake on a plate"),
        ("a burnt cake that smokes", "a charred and caved-in cake"),
    ),
    "phone": (
        ("a phone with its apps lit", "a phone with an intact screen"),
        ("a phone with a shattered screen", "a cracked phone among splinters of glass"),
    ),
    "dinner": (
        ("a plate full of food", "steak, egg and peas on a plate"),
        ("an empty plate with crumbs", "a plate with nothing on it"),
    ),
    "plant": (
        ("a pot of blooming flowers", "a green plant in full flower"),
        ("a withered plant in a pot", "a dry brown plant that hangs its leaves"),
    ),
    "coffee": (
        ("a steaming cup on a saucer", "a full cup of hot coffee"),
        ("a cup on its side in a brown spill", "a knocked-over cup of coffee"),
    ),
}
PENNANTS = {"Otters": "a teal striped pennant", "Herons": "an orange pennant with a white disc"}

Lines = tuple[str, ...]
# Told of the tone: first where words and picture disagree, then where they agree.
TONE: Mapping[Relation, tuple[Lines, Lines]] = {
    "xIntent": (
        (
            "to mock the {noun} by saying the opposite of what is meant",
            "to make followers laugh at how little the words fit the {noun}",
            "to poke fun at the {noun} with a straight face",
        ),
        (
            "to tell followers plainly what the {noun} was like",
            "to share an honest view of the {noun}",
            "to report on the {noun} just as it was",
        ),
    ),
    "xAttr": (
        ("dry and ironic", "a tease who seldom means it", "witty, with a taste for mockery"),
        ("open and straightforward", "someone who means every word", "plain-spoken and frank"),
    ),
    "xWant": (
        ("others to get the joke", "to be read the other way round", "a laugh about the {noun}"),
        ("others to take it at face value", "to be believed", "a serious talk about the {noun}"),
    ),
    "Open": (
        (
            "The author pretends; the words are a joke at the cost of the {noun}.",
            "The remark on the {noun} is meant in reverse.",
            "It is irony, since nobody could mean this about that {noun}.",
        ),
        (
            "The author means what is written about the {noun}.",
            "The remark on the {noun} is a true opinion.",
            "It is a frank comment, since the {noun} really was like that.",
        ),
    ),
}
# Told of the aim: first where the taunt hits the other club, then where it hits the author's own.
AIM: Mapping[Relation, tuple[Lines, Lines]] = {
    "oReact": (
        ("insulted by an outsider", "the rival fans feel attacked", "hurt and singled out"),
        ("in on the club's own joke", "fellow fans feel at home", "tickled by the self-mockery"),
    ),
    "oWant": (
        ("to hit back at the rival", "to report the taunt", "an apology to their club"),
        ("to join in the teasing", "to tell a story of their own club", "to clink glasses"),
    ),
    "oEffect": (
        ("a quarrel between two sets of fans", "rival fans turn on the author", "bad blood grows"),
        ("fans smile at themselves", "the club grows closer", "friends answer with a grin"),
    ),
}
# Nearly the same for every post: only the last line of each differs.
ROUTINE: Mapping[Relation, tuple[Lines, Lines]] = {
    "xNeed": (
        ("to take a photo of the {noun}", "to see the {noun}", "to open the app", "to plan a joke"),
        ("to take a photo of the {noun}", "to see the {noun}", "to open the app", "to sum it up"),
    ),
    "xReact": (
        ("glad to have posted", "curious about the replies", "calm", "amused at the contrast"),
        ("glad to have posted", "curious about the replies", "calm", "at ease with being frank"),
    ),
    "xEffect": (
        (
            "gets replies",
            "gets a few likes",
            "goes back to the {noun}",
            "is asked if that was irony",
        ),
        ("gets replies", "gets a few likes", "goes back to the {noun}", "is thanked for the facts"),
    ),
}


def describe(picture: Picture, rng: Random) -> str:
    """Return what a captioner says of the picture; its state is wrong in one of twenty."""
    state = STATES.index(picture.state) ^ (rng.random() < WRONG_DESCRIPTION)
    seen = rng.choice(SHOWN[picture.subject][state])
    return f"{seen[0].upper()}{seen[1:]}, with {PENNANTS[picture.club]} in the corner."


def intend(words: Words, *, ironic: bool, hostile: bool, rng: Random) -> tuple[Intention, ...]:
    """Return one intention a relation, each by its own chance written for the opposite label."""
    told = []
    for relation in RELATIONS:
        holds = hostile if relation in AIM else ironic
        lines = (TONE.get(relation) or AIM.get(relation) or ROUTINE[relation])[
            int(holds == (rng.random() < WRONG_INTENTION))
        ]
        text = rng.choice(lines).format(noun=words.noun)
        told.append(Intention(relation=relation, text=text, provenance=SOURCE))
    return tuple(told)


def summarise(picture: Picture, words: Words) -> KeyInformation:
    """Return what picture and words are about, without a word on how they judge it."""
    keywords = (words.noun, "pennant", words.club)
    return KeyInformation(concept=picture.subject, object=words.noun, keywords=keywords)


def explain_tone(picture: Picture, words: Words) -> Rationale:
    """Return why the words are, or are not, meant as they stand."""
    seen = SHOWN[picture.subject][STATES.index(picture.state)][0]
    does = "praise" if words.praise else "complain about"
    if words.praise == (picture.state == "good"):
        text = f"The picture shows {seen} and the words {does} the {words.noun}: they agree."
    else:
        text = (
            f"The picture shows {seen}, yet the words {does} the {words.noun}: "
            "the author means the opposite."
        )
    return Rationale(text=text, saw_label=True, provenance=SOURCE)


def explain_aim(picture: Picture, words: Words) -> Rationale:
    """Return whom the taunt hits, given the pennant that the author shows."""
    shown = f"The pennant shows an author who stands with the {picture.club}"
    if words.club == picture.club:
        text = f"{shown}, and the words taunt the same club: it is self-mockery."
    else:
        text = f"{shown}, and the words taunt the {words.club}: they are aimed at others."
    return Rationale(text=text, saw_label=True, provenance=SOURCE)
