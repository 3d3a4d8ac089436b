"""The commands that train, export, score and serve: their options and what they call."""

import json
import shlex
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from miko_clf.cli.parser import (
    Command,
    Parser,
    UsageError,
    add_data_options,
    choose_cache,
    find_cache_folder,
    open_data,
    require_options,
    write_skipped_posts,
)
from miko_clf.errors import MikoError

_TRACKERS = (
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


def _add_fit_options(parser: Parser) -> None:
    """Add what `fit` takes, apart from the keys of the recipe."""
    add = parser.add_argument
    add("source", metavar="RECIPE", help="YAML file, or name of a shipped recipe")
    add_data_options(parser)
    add("--out", type=Path, metavar="BUNDLE", help="bundle to write")
    add("--overwrite", action="store_true", help="replace a bundle, or another run's checkpoints")
    add("--seed", type=int, metavar="N", help="same as --recipe.seed")
    say = "positive class of two, TASK=NAME,... where there are tasks (default: the rarer)"
    add("--positive", type=str, metavar="NAME", help=say)
    say = "minutes between checkpoints within an epoch (default: %(default)s)"
    add("--minutes", type=PositiveFloat, default=10.0, metavar="X", help=say)
    say = f"where else to log, may be repeated: {', '.join(_TRACKERS)} (default: nowhere)"
    add("--tracker", action="append", default=[], metavar="NAME", help=say)
    say = "read a description, intentions or a rationale that give the label away all the same"
    add("--i-know-it-leaks", action="store_true", help=say)
    add("--print_config", action="store_true", help="print the whole recipe as YAML and exit")


def add_recipe_options(parser: Parser, recipe: Any) -> None:
    """Add an option for each key of the pydantic model of a recipe."""
    about = (
        "Keys of the recipe: a YAML value given here stands above the file's. "
        "Defaults are those\n  of a key that the file leaves out."
    )
    group = parser.add_argument_group("recipe", about)
    for key, say, shape in _list_recipe_keys(recipe):
        kind = str if shape == "NAME" else Any
        group.add_argument(f"--recipe.{key}", type=kind, default=SUPPRESS, metavar=shape, help=say)


def _add_bundle_argument(parser: Parser) -> None:
    """Add the one bundle that a command works on."""
    say = "bundle that fit has written"
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=say)


def _add_score_options(parser: Parser) -> None:
    """Add what `score` takes."""
    _add_bundle_argument(parser)
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
    _add_session_options(parser)


def _add_reason_options(parser: Parser) -> None:
    """Add what `reason` takes."""
    _add_bundle_argument(parser)
    add = parser.add_argument
    add("posts", type=Path, metavar="POSTS", help=".jsonl, .csv or .parquet file of posts")
    say = "JSONL file of ids and rationales"
    add("-o", "--out", type=Path, required=True, metavar="OUT", help=say)
    say = "tokens of a rationale, at most (default: as many as the recipe learned from)"
    add("--max-length", type=PositiveInt, metavar="N", help=say)
    say = "beams of the search, 1 for the likeliest next word (default: %(default)s)"
    add("--beams", type=PositiveInt, default=1, metavar="N", help=say)


def _add_serve_options(parser: Parser) -> None:
    """Add what `serve` takes."""
    _add_bundle_argument(parser)
    add = parser.add_argument
    add("--host", type=str, default="127.0.0.1", help="address to listen on (default: %(default)s)")
    say = "port to listen on, 0 for a free one (default: %(default)s)"
    add("--port", type=NonNegativeInt, default=8000, metavar="N", help=say)
    say = "threads that compute one batch (default: one a core)"
    add("--threads", type=PositiveInt, metavar="N", help=say)
    say = "share of the positive class among the posts to come (default: as fitted)"
    add("--prior", type=PositiveFloat, metavar="SHARE", help=say)
    _add_session_options(parser)


def _add_ask_options(parser: Parser) -> None:
    """Add what `ask` takes."""
    add = parser.add_argument
    add("url", type=str, metavar="URL", help="a running server, such as http://127.0.0.1:8000")
    add("posts", type=Path, metavar="POSTS", help=".jsonl, .csv or .parquet file of posts")
    say = "posts to send, from the head of the file (default: %(default)s)"
    add("--count", type=PositiveInt, default=1, metavar="N", help=say)
    say = "seconds in which the server may become ready (default: %(default)s)"
    add("--wait", type=NonNegativeFloat, default=0.0, metavar="X", help=say)


def _add_world_options(parser: Parser) -> None:
    """Add what `world` takes."""
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder for images/, sarcasm/, harm/ and both/")
    add("--seed", type=NonNegativeInt, default=0, metavar="N", help="(default: %(default)s)")
    say = "posts, a multiple of four (default: %(default)s)"
    add("--posts", type=PositiveInt, default=3000, metavar="N", help=say)


def _add_recipes_options(parser: Parser) -> None:
    """Add what `recipes` takes."""
    say = "print this recipe with every default written out"
    parser.add_argument("name", nargs="?", metavar="NAME", help=say)


def _add_doctor_options(parser: Parser) -> None:
    """Add what `doctor` takes."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _add_session_options(parser: Parser) -> None:
    add = parser.add_argument
    say = "what computes (default: %(default)s)"
    add("--provider", choices=("cpu", "cuda"), default="cpu", help=say)
    say = "take the CPU where cuda is asked for and not to be had"
    add("--allow-cpu", action="store_true", help=say)


def _list_recipe_keys(
    section: Any, given: Any = None, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield key, help and shape of every leaf of a section, and of sections that may be null.

    Where a section is one of several kinds, a key of more than one kind is told of once.
    """
    told: set[str] = set()
    for name, field in section.model_fields.items():
        inner = _find_sections(field.annotation)
        null = type(None) in get_args(field.annotation)
        default = getattr(given, name, field.default)
        if not inner or null:
            known = "" if field.is_required() else f" (default: {_format_yaml(default)})"
            say = f"{field.description}{known}".replace("%", "%%")
            yield prefix + name, say, _describe_shape(field.annotation)
        for kind in inner:
            held = default if isinstance(default, kind) else None
            for key in _list_recipe_keys(kind, held, f"{prefix}{name}."):
                if key[0] not in told:
                    told.add(key[0])
                    yield key


def _find_sections(annotation: Any) -> list[Any]:
    """Return the sections that an annotation allows: one, several kinds, or none at all."""
    bare = [getattr(one, "__origin__", one) for one in (annotation, *get_args(annotation))]
    return [one for one in bare if hasattr(one, "model_fields")]


def _format_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _describe_shape(annotation: Any) -> str:
    options = get_args(annotation)
    if type(None) in options:
        return _describe_shape(options[0])
    if get_origin(annotation) is Literal:
        return "{" + ",".join(options) + "}" if len(options) > 1 else "KIND"
    shapes = {bool: "{true,false}", int: "N", float: "X", str: "NAME"}
    return shapes.get(annotation, "LIST" if Ellipsis in options else "SECTION")


TRAIN_COMMANDS: Mapping[str, Command] = {
    "fit": Command(
        "Train a recipe on a folder of posts and write a bundle",
        "RECIPE --data D --out BUNDLE [options] [--recipe.KEY VALUE ...]",
        "tiny --data runs/world/sarcasm --out runs/demo --recipe.fusion.layers 4",
        _add_fit_options,
        "train",
    ),
    "export": Command(
        "Write a bundle's ONNX graphs, once they agree with torch",
        "BUNDLE",
        "runs/demo",
        _add_bundle_argument,
        "train,cpu",
    ),
    "score": Command(
        "Score a file of posts with an exported bundle",
        "BUNDLE POSTS -o OUT [options]",
        "runs/demo posts.jsonl -o scores.jsonl",
        _add_score_options,
        "serve,cpu",
    ),
    "reason": Command(
        "Write a rationale for each post of a file, with a bundle of a generator (mr-harm)",
        "BUNDLE POSTS -o OUT [options]",
        "runs/mr-harm posts.jsonl -o rationales.jsonl",
        _add_reason_options,
        "train",
    ),
    "serve": Command(
        "Serve an exported bundle over HTTP",
        "BUNDLE [options]",
        "runs/demo --port 8000",
        _add_serve_options,
        "serve,cpu",
    ),
    "ask": Command(
        "Send the first posts of a file to a running server and print its answer",
        "URL POSTS [options]",
        "http://127.0.0.1:8000 runs/world/sarcasm/test.jsonl",
        _add_ask_options,
    ),
    "world": Command(
        "Write the demo world: posts whose label is in neither the words nor the picture alone",
        "OUT [--seed N] [--posts N]",
        "runs/world",
        _add_world_options,
    ),
    "recipes": Command(
        "List the shipped recipes, or print one", "[NAME]", "tiny", _add_recipes_options
    ),
    "doctor": Command(
        "Say what this machine has, what is missing and the command that mends it",
        "[--json]",
        "",
        _add_doctor_options,
    ),
}


def _run_fit(given: Namespace, line: str) -> None:
    from miko_clf.recipe import schema as recipes

    recipe = recipes.load_recipe(given.source, _read_overrides(given))
    if given.print_config:
        print(recipes.dump_recipe(recipe), end="")
        return
    require_options(given, "data", "out")
    _check_trackers(given.tracker)
    data, skipped = open_data(given)
    from miko_clf import pipeline
    from miko_clf.train.loop import StoppedError

    plan = pipeline.FitOptions(
        given.out,
        cache=choose_cache(given),
        positive=given.positive,
        overwrite=given.overwrite,
        minutes=given.minutes,
        trackers=tuple(given.tracker),
        leaks=given.i_know_it_leaks,
    )
    try:
        pipeline.fit(recipe, data, plan)
    except StoppedError as error:
        raise KeyboardInterrupt(str(error)) from None
    write_skipped_posts(skipped, given.out.with_name(f"{given.out.name}.skipped.json"))
    print(f"bundle: {given.out}")
    bundle, where = shlex.quote(str(given.out)), shlex.quote(str(given.data))
    print(f"next:   miko-clf evaluate {bundle} --data {where} --split test")
    print(f"        miko-clf export {bundle}")


def _read_overrides(given: Namespace) -> dict[str, Any]:
    """Return the keys of the recipe that the command line sets, dotted, with their values."""
    flat = vars(given.as_flat())
    keys = {name: name.removeprefix("recipe.") for name in flat if name.startswith("recipe.")}
    found = {key: flat[name] for name, key in keys.items()}
    return found if given.seed is None else {**found, "seed": given.seed}


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        if name not in _TRACKERS:
            raise UsageError(f"no tracker called {name!r}; choose from {', '.join(_TRACKERS)}")
        if find_spec(name) is None:
            raise MikoError(f"tracker {name} is not installed; pip install {name}")


def _run_export(given: Namespace, line: str) -> None:
    from miko_clf.export.onnx_export import export_bundle

    print(export_bundle(given.bundle).line())
    bundle = shlex.quote(str(given.bundle))
    print(f"next: miko-clf score {bundle} POSTS -o scores.jsonl, or miko-clf serve {bundle}")


def _run_world(given: Namespace, line: str) -> None:
    from rich.console import Console
    from rich.progress import track

    from miko_clf.data.demo.world import write_world

    def watch(pictures: Sequence[Any]) -> Iterable[Any]:
        return track(pictures, "drawing", console=Console(stderr=True))

    folder = write_world(given.out, seed=given.seed, num_posts=given.posts, progress=watch)
    print(f"demo world: {folder}")
    where = shlex.quote(str(folder / "sarcasm"))
    print(f"next:       miko-clf fit tiny --data {where} --out runs/demo")


def _run_recipes(given: Namespace, line: str) -> None:
    from miko_clf.recipe import schema as recipes

    if given.name:
        print(recipes.dump_recipe(recipes.load_recipe(given.name)), end="")
        return
    for name in recipes.list_recipes():
        recipe = recipes.load_recipe(name)
        towers = [tower for tower in (recipe.image, recipe.text) if tower]
        shown = [f"{tower.name} ({'frozen' if tower.frozen else 'learns'})" for tower in towers]
        slots = "student slots" if recipe.slots else "no slots"
        epochs = f"{recipe.reasoning.epochs} reasoning + {recipe.task.epochs} task epochs"
        print(f"{name}\n  reads   {', '.join(recipe.inputs)}")
        print(f"  towers  {' + '.join(shown)}\n  trains  {epochs}, {slots}")


def _run_doctor(given: Namespace, line: str) -> None:
    from miko_clf import doctor

    found = doctor.diagnose_installation(find_cache_folder())
    print(doctor.dump_diagnoses(found) if given.json else doctor.format_diagnoses(found))
    sys.exit(any(each.state == "broken" for each in found))


def _run_score(given: Namespace, line: str) -> None:
    from miko_clf.serve.offline import score_file

    tally = score_file(
        given.bundle,
        given.posts,
        given.out,
        arm=given.arm,
        provider=given.provider,
        allow_cpu=given.allow_cpu,
        skip_bad=given.skip_bad,
        batch_size=given.batch_size,
        prior=_parse_prior(given.prior),
    )
    print(f"{tally.scored} posts scored: {given.out}")
    if tally.prior is not None:
        share, low, high = tally.prior
        print(
            f"scores are corrected for an estimated prior of {share:.3f} (95 %: {low:.3f} to "
            f"{high:.3f}, by how the {tally.scored} posts score)"
        )
    if tally.skipped:
        print(f"{tally.skipped} bad posts were passed over, see {given.out}.skipped.json")


def _parse_prior(given: str | None) -> Any:
    """Return a share, `auto` or none."""
    if given in (None, "auto"):
        return given
    try:
        return float(given)
    except ValueError:
        raise UsageError(f"--prior {given!r} is neither a share nor auto") from None


def _run_reason(given: Namespace, line: str) -> None:
    from miko_clf import manifest
    from miko_clf.data.readers import read_posts
    from miko_clf.evaluate.predictions import generate_rationales

    posts = list(read_posts(given.posts))
    found = generate_rationales(given.bundle, posts, max_length=given.max_length, beams=given.beams)
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in found]
    manifest.write_text(given.out, "".join(lines))
    print(f"{len(lines)} rationales written: {given.out}")


def _run_serve(given: Namespace, line: str) -> None:
    from miko_clf.serve.app import serve_bundle

    serve_bundle(
        given.bundle,
        given.host,
        given.port,
        provider=given.provider,
        allow_cpu=given.allow_cpu,
        threads=given.threads,
        prior=given.prior,
    )


def _run_ask(given: Namespace, line: str) -> None:
    from miko_clf.serve.client import request_scores

    answer = request_scores(given.url, given.posts, given.count, given.wait)
    print(json.dumps(answer, indent=2, ensure_ascii=False))


TRAIN_ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "fit": _run_fit,
    "export": _run_export,
    "score": _run_score,
    "reason": _run_reason,
    "serve": _run_serve,
    "ask": _run_ask,
    "world": _run_world,
    "recipes": _run_recipes,
    "doctor": _run_doctor,
}
