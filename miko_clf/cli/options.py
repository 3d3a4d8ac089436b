"""The words that the commands which train, compare, export and serve take."""

from argparse import SUPPRESS
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from miko_clf.cli.parser import Command, Parser, cache_folder

TRACKERS = (
    "aim",
    "clearml",
    "comet_ml",
    "dvclive",
    "mlflow",
    "swanlab",
    "tensorboard",
    "trackio",
    "wandb",
)


def fit(parser: Parser) -> None:
    """Add what `fit` takes, apart from the keys of the recipe."""
    add = parser.add_argument
    add("source", metavar="RECIPE", help="YAML file, or name of a shipped recipe")
    data(parser)
    add("--out", type=Path, metavar="BUNDLE", help="bundle to write")
    add("--overwrite", action="store_true", help="replace a bundle, or another run's checkpoints")
    add("--seed", type=int, metavar="N", help="same as --recipe.seed")
    say = "positive class of two, TASK=NAME,... where there are tasks (default: the rarer)"
    add("--positive", type=str, metavar="NAME", help=say)
    say = "minutes between checkpoints within an epoch (default: %(default)s)"
    add("--minutes", type=PositiveFloat, default=10.0, metavar="X", help=say)
    say = f"where else to log, may be repeated: {', '.join(TRACKERS)} (default: nowhere)"
    add("--tracker", action="append", default=[], metavar="NAME", help=say)
    say = "read a description, intentions or a rationale that give the label away all the same"
    add("--i-know-it-leaks", action="store_true", help=say)
    add("--print_config", action="store_true", help="print the whole recipe as YAML and exit")


def recipe_keys(parser: Parser, recipe: Any) -> None:
    """Add an option for each key of the pydantic model of a recipe."""
    about = (
        "Keys of the recipe: a YAML value given here stands above the file's. "
        "Defaults are those\n  of a key that the file leaves out."
    )
    group = parser.add_argument_group("recipe", about)
    for key, say, shape in _keys(recipe):
        kind = str if shape == "NAME" else Any
        group.add_argument(f"--recipe.{key}", type=kind, default=SUPPRESS, metavar=shape, help=say)


def bundle(parser: Parser) -> None:
    """Add the one bundle that a command works on."""
    say = "bundle that fit has written"
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=say)


def score(parser: Parser) -> None:
    """Add what `score` takes."""
    bundle(parser)
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help=".jsonl, .csv or .parquet file of posts")
    add("-o", "--out", type=Path, required=True, metavar="OUT", help="JSONL file of scores")
    say = "what stands for the intentions (default: those given, else the model's guess)"
    add("--arm", choices=("with", "without", "student"), help=say)
    say = "posts held in memory at a time (default: %(default)s)"
    add("--batch-size", type=PositiveInt, default=256, metavar="N", help=say)
    say = "share of the positive class among these posts; auto to estimate it (default: as fitted)"
    add("--prior", type=str, metavar="SHARE", help=say)
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")
    _session(parser)


def reason(parser: Parser) -> None:
    """Add what `reason` takes."""
    bundle(parser)
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help=".jsonl, .csv or .parquet file of posts")
    say = "JSONL file of ids and rationales"
    add("-o", "--out", type=Path, required=True, metavar="OUT", help=say)
    say = "tokens of a rationale, at most (default: as many as the recipe learned from)"
    add("--max-length", type=PositiveInt, metavar="N", help=say)
    say = "beams of the search, 1 for the likeliest next word (default: %(default)s)"
    add("--beams", type=PositiveInt, default=1, metavar="N", help=say)


def serve(parser: Parser) -> None:
    """Add what `serve` takes."""
    bundle(parser)
    add = parser.add_argument
    add("--host", type=str, default="127.0.0.1", help="address to listen on (default: %(default)s)")
    say = "port to listen on, 0 for a free one (default: %(default)s)"
    add("--port", type=NonNegativeInt, default=8000, metavar="N", help=say)
    say = "threads that compute one batch (default: one a core)"
    add("--threads", type=PositiveInt, metavar="N", help=say)
    say = "share of the positive class among the posts to come (default: as fitted)"
    add("--prior", type=PositiveFloat, metavar="SHARE", help=say)
    _session(parser)


def ask(parser: Parser) -> None:
    """Add what `ask` takes."""
    add = parser.add_argument
    add("url", type=str, metavar="URL", help="a running server, such as http://127.0.0.1:8000")
    add("posts", type=Path, metavar="POSTS", help=".jsonl, .csv or .parquet file of posts")
    say = "posts to send, from the head of the file (default: %(default)s)"
    add("--count", type=PositiveInt, default=1, metavar="N", help=say)
    say = "seconds in which the server may become ready (default: %(default)s)"
    add("--wait", type=NonNegativeFloat, default=0.0, metavar="X", help=say)


def world(parser: Parser) -> None:
    """Add what `world` takes."""
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder for images/, sarcasm/, harm/ and both/")
    add("--seed", type=NonNegativeInt, default=0, metavar="N", help="(default: %(default)s)")
    say = "posts, a multiple of four (default: %(default)s)"
    add("--posts", type=PositiveInt, default=3000, metavar="N", help=say)


def recipes(parser: Parser) -> None:
    """Add what `recipes` takes."""
    say = "print this recipe with every default written out"
    parser.add_argument("name", nargs="?", metavar="NAME", help=say)


def doctor(parser: Parser) -> None:
    """Add what `doctor` takes."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def data(parser: Parser) -> None:
    add = parser.add_argument
    add("--data", type=Path, metavar="D", help="folder or file of posts")
    say = "which task of a published data set that has several (see miko-clf data)"
    add("--task", type=str, metavar="NAME", help=say)
    say = "rename or merge labels as posts are read"
    add("--label-map", type=str, metavar="A=B,C=B", help=say)
    say = "make train, val and test (80/10/10, by group) of posts that stand unsplit"
    add("--split-seed", type=int, metavar="N", help=say)
    add("--skip-bad", action="store_true", help="pass over bad posts and list them in a file")
    say = "folder for features of frozen towers (default: $MIKO_CACHE, here %(default)s)"
    add("--cache", type=Path, default=cache_folder(), metavar="DIR", help=say)
    add("--no-cache", action="store_true", help="run frozen towers again in every epoch")


def _session(parser: Parser) -> None:
    add = parser.add_argument
    say = "what computes (default: %(default)s)"
    add("--provider", choices=("cpu", "cuda"), default="cpu", help=say)
    say = "take the CPU where cuda is asked for and not to be had"
    add("--allow-cpu", action="store_true", help=say)


def _keys(section: Any, given: Any = None, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield key, help and shape of every leaf of a section, and of sections that may be null.

    Where a section is one of several kinds, a key of more than one kind is told of once.
    """
    told: set[str] = set()
    for name, field in section.model_fields.items():
        inner = _sections(field.annotation)
        null = type(None) in get_args(field.annotation)
        default = getattr(given, name, field.default)
        if not inner or null:
            known = "" if field.is_required() else f" (default: {_yaml(default)})"
            say = f"{field.description}{known}".replace("%", "%%")
            yield prefix + name, say, _shape(field.annotation)
        for kind in inner:
            held = default if isinstance(default, kind) else None
            for key in _keys(kind, held, f"{prefix}{name}."):
                if key[0] not in told:
                    told.add(key[0])
                    yield key


def _sections(annotation: Any) -> list[Any]:
    """Return the sections that an annotation allows: one, several kinds, or none at all."""
    bare = [getattr(one, "__origin__", one) for one in (annotation, *get_args(annotation))]
    return [one for one in bare if hasattr(one, "model_fields")]


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _shape(annotation: Any) -> str:
    options = get_args(annotation)
    if type(None) in options:
        return _shape(options[0])
    if get_origin(annotation) is Literal:
        return "{" + ",".join(options) + "}" if len(options) > 1 else "KIND"
    shapes = {bool: "{true,false}", int: "N", float: "X", str: "NAME"}
    return shapes.get(annotation, "LIST" if Ellipsis in options else "SECTION")


COMMANDS: Mapping[str, Command] = {
    "fit": Command(
        "Train a recipe on a folder of posts and write a bundle",
        "RECIPE --data D --out BUNDLE [options] [--recipe.KEY VALUE ...]",
        "tiny --data runs/world/sarcasm --out runs/demo --recipe.fusion.layers 4",
        fit,
        "train",
    ),
    "export": Command(
        "Write a bundle's ONNX graphs, once they agree with torch",
        "BUNDLE",
        "runs/demo",
        bundle,
        "train,cpu",
    ),
    "score": Command(
        "Score a file of posts with an exported bundle",
        "BUNDLE POSTS -o OUT [options]",
        "runs/demo posts.jsonl -o scores.jsonl",
        score,
        "serve,cpu",
    ),
    "reason": Command(
        "Write a rationale for each post of a file, with a bundle of a generator (mr-harm)",
        "BUNDLE POSTS -o OUT [options]",
        "runs/mr-harm posts.jsonl -o rationales.jsonl",
        reason,
        "train",
    ),
    "serve": Command(
        "Serve an exported bundle over HTTP",
        "BUNDLE [options]",
        "runs/demo --port 8000",
        serve,
        "serve,cpu",
    ),
    "ask": Command(
        "Send the first posts of a file to a running server and print its answer",
        "URL POSTS [options]",
        "http://127.0.0.1:8000 runs/world/sarcasm/test.jsonl",
        ask,
    ),
    "world": Command(
        "Write the demo world: posts whose label is in neither the words nor the picture alone",
        "OUT [--seed N] [--posts N]",
        "runs/world",
        world,
    ),
    "recipes": Command("List the shipped recipes, or print one", "[NAME]", "tiny", recipes),
    "doctor": Command(
        "Say what this machine has, what is missing and the command that mends it",
        "[--json]",
        "",
        doctor,
    ),
}
