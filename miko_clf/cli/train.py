"""The commands that train, export, score and serve: their options and what they call."""

import json
import shlex
import sys
from argparse import SUPPRESS
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from miko_clf.cli.ocr import OCR_HELP, open_optional_reader, read_data_by_ocr
from miko_clf.cli.parser import (
    Command,
    Parser,
    UsageError,
    choose_cache,
    find_cache_folder,
    format_split_options,
    open_data,
    print_json,
    require_options,
    write_skipped_posts,
)
from miko_clf.errors import MikoError

_TRACKERS = (
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip


def _add_recipes_options(parser: Parser) -> None:
    say = "print this recipe with every default written out"
    parser.add_option("name NAME", str, say, nargs="?")
    parser.add_json_option()


def _run_recipes(args: Namespace, line: str) -> None:
    """List the shipped recipes, or print one.

    A recipe holds every choice that makes one system differ from another; fit, sweep and compare
    take its name, or a YAML file that began as a copy of what this prints.
    """
    from miko_clf.recipe import schema as recipes

    names = [args.name] if args.name else recipes.list_recipes()
    shipped = [recipes.load_recipe(name) for name in names]
    if args.json:
        print_json(shipped[0] if args.name else shipped)
        return
    if args.name:
        print(recipes.dump_recipe(shipped[0]), end="")
        return
    for recipe in shipped:
        print(f"{recipe.name}\n  reads   {', '.join(recipe.inputs)}")
        for kind, tower in (("image", recipe.image), ("text", recipe.text)):
            if tower:
                print(f"  {kind:6}  {tower.name} ({'frozen' if tower.frozen else 'learns'})")
        epochs = f"{recipe.reasoning.epochs} reasoning + {recipe.task.epochs} task epochs"
        print(f"  trains  {epochs}, {'student' if recipe.slots else 'no'} slots")


def _add_fit_options(parser: Parser) -> None:
    add = parser.add_option
    add("source RECIPE", str, "YAML file, or name of a shipped recipe")
    parser.add_data_options()
    add("--out BUNDLE", Path, "bundle to write")
    add("--overwrite", bool, "replace a bundle, or another run's checkpoints")
    add("--ocr", bool, OCR_HELP)
    add("--seed N", int, "same as --recipe.seed")
    parser.add_training_options()
    add("--minutes X", PositiveFloat, "minutes between checkpoints within an epoch", 10.0)
    say = f"where else to log, may be repeated: {', '.join(_TRACKERS)} (default: nowhere)"
    add("--tracker NAME", list, say)
    add("--print_config", bool, "print the whole recipe as YAML and exit")
    add_recipe_options(parser)


def add_recipe_options(parser: Parser) -> None:
    """Add an option for each key of a recipe."""
    from miko_clf.recipe.schema import Recipe

    about = (
        "A YAML value given here stands above the file's. Defaults are those of a\n"
        "  key that the file leaves out."
    )
    group = parser.add_argument_group("recipe", about)
    for key, say, shape in _list_recipe_keys(Recipe):
        kind = str if shape == "NAME" else Any
        group.add_argument(f"--recipe.{key}", type=kind, default=SUPPRESS, metavar=shape, help=say)


def _list_recipe_keys(
    section: Any, values: Any = None, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield key, help and shape of every leaf of a section, and of sections that may be null.

    `values` is a section of that kind whose values are the defaults. Where a section is one of
    several kinds, a key of more than one kind is told of once.
    """
    known: set[str] = set()
    for name, field in section.model_fields.items():
        sections = _find_sections(field.annotation)
        default = getattr(values, name, field.default)
        if not sections or type(None) in get_args(field.annotation):
            end = "" if field.is_required() else f" (default: {_format_yaml(default)})"
            say = f"{field.description}{end}".replace("%", "%%")
            yield prefix + name, say, _describe_shape(field.annotation)
        for kind in sections:
            inner = default if isinstance(default, kind) else None
            for key in _list_recipe_keys(kind, inner, f"{prefix}{name}."):
                if key[0] not in known:
                    known.add(key[0])
                    yield key


def _find_sections(annotation: Any) -> list[Any]:
    """Return the sections that an annotation allows: one, several kinds, or none at all."""
    kinds = [getattr(kind, "__origin__", kind) for kind in (annotation, *get_args(annotation))]
    return [kind for kind in kinds if hasattr(kind, "model_fields")]


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


def _run_fit(args: Namespace, line: str) -> None:
    """Train a recipe on a folder of posts and write a bundle.

    Learns from train, chooses epoch, threshold and temperature by val, and never opens test. A run
    that was stopped or killed goes on when the same command is given again.
    """
    from miko_clf.recipe import schema as recipes

    recipe = recipes.load_recipe(args.source, _read_overrides(args))
    if args.print_config:
        print(recipes.dump_recipe(recipe), end="")
        return
    require_options(args, "data", "out")
    for name in args.tracker:
        if name not in _TRACKERS:
            raise UsageError(f"no tracker called {name!r}; choose from {', '.join(_TRACKERS)}")
        if find_spec(name) is None:
            raise MikoError(f"tracker {name} is not installed; pip install {name}")
    if args.ocr and "text" not in recipe.inputs:
        raise MikoError(f"recipe {recipe.name} reads no text, so there is no use in --ocr")
    data, skipped = open_data(args)
    data = read_data_by_ocr(data, args)
    from miko_clf import pipeline

    pipeline.fit(
        recipe,
        data,
        args.out,
        cache=choose_cache(args),
        positive=args.positive,
        overwrite=args.overwrite,
        minutes=args.minutes,
        trackers=args.tracker,
        leaks=args.i_know_it_leaks,
    )
    write_skipped_posts(skipped, args.out.with_name(f"{args.out.name}.skipped.json"))
    print(f"bundle: {args.out}")
    bundle, where = shlex.quote(str(args.out)), shlex.quote(str(args.data))
    splits = format_split_options(args)
    ocr = " --ocr" if args.ocr else ""
    print(f"next:   miko-clf evaluate {bundle} --data {where}{splits}{ocr} --split test")
    print(f"        miko-clf export {bundle}")


def _read_overrides(args: Namespace) -> dict[str, Any]:
    """Return the keys of the recipe that the command line sets, dotted, with their values."""
    flat = vars(args.as_flat())
    keys = {name: name.removeprefix("recipe.") for name in flat if name.startswith("recipe.")}
    values = {key: flat[name] for name, key in keys.items()}
    return values if args.seed is None else {**values, "seed": args.seed}


def _add_bundle_argument(parser: Parser) -> None:
    """Add the one bundle that a command works on."""
    parser.add_option("bundle BUNDLE", Path, "bundle that fit has written")


def _run_export(args: Namespace, line: str) -> None:
    """Write a bundle's ONNX graphs, once they agree with torch.

    The graphs are written into the bundle; score and serve need them, and no torch.
    """
    from miko_clf.export.onnx_export import export_bundle

    print(export_bundle(args.bundle).line())
    bundle = shlex.quote(str(args.bundle))
    print(f"next: miko-clf score {bundle} POSTS -o scores.jsonl, or miko-clf serve {bundle}")


def _add_score_options(parser: Parser) -> None:
    _add_bundle_argument(parser)
    add = parser.add_option
    add("posts POSTS", Path, ".jsonl, .csv or .parquet file of posts")
    add("-o,--out OUT", Path, "JSONL file of scores", required=True)
    say = "what stands for the intentions (default: those given, else the model's guess)"
    add("--arm", ("with", "without", "student"), say)
    add("--batch-size N", PositiveInt, "posts held in memory at a time", 256)
    add("--ocr", bool, OCR_HELP)
    say = "share of the positive class among these posts; auto to estimate it (default: as fitted)"
    add("--prior SHARE", str, say)
    add("--skip-bad", bool, "pass over bad posts and list them in a file")
    _add_session_options(parser)


def _run_score(args: Namespace, line: str) -> None:
    """Score a file of posts with an exported bundle.

    OUT has a line for each post: its id, the probability of each label and the label that the
    bundle's threshold decides for. It is written whole or not at all.
    """
    from miko_clf.serve.offline import load

    prior = _parse_prior(args.prior)
    scorer = load(
        args.bundle,
        provider=args.provider,
        allow_cpu=args.allow_cpu,
        prior=prior,
        reader=open_optional_reader(args),
    )
    tally = scorer.score_file(
        args.posts,
        args.out,
        arm=args.arm,
        skip_bad=args.skip_bad,
        batch_size=args.batch_size,
        auto_prior=args.prior == "auto",
    )
    print(f"{tally.scored} posts scored: {args.out}")
    if tally.prior is not None:
        share, low, high = tally.prior
        print(
            f"scores are corrected for an estimated prior of {share:.3f} (95 %: {low:.3f} to "
            f"{high:.3f}, by how the {tally.scored} posts score)"
        )
    if tally.skipped:
        print(f"{tally.skipped} bad posts were passed over, see {args.out}.skipped.json")
        print("".join(f"  {line}\n" for line in tally.reasons), end="")
    for line in tally.remarks:
        print(f"{args.posts}: {line}", file=sys.stderr)


def _parse_prior(text: str | None) -> float | None:
    """Return the share that was given, none where there is none or it is to be estimated."""
    if text is None or text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--prior {text!r} is neither a share nor auto") from None


def _add_reason_options(parser: Parser) -> None:
    _add_bundle_argument(parser)
    add = parser.add_option
    add("posts POSTS", Path, ".jsonl, .csv or .parquet file of posts")
    add("-o,--out OUT", Path, "JSONL file of ids and rationales", required=True)
    say = "tokens of a rationale, at most (default: as many as the recipe learned from)"
    add("--max-length N", PositiveInt, say)
    add("--beams N", PositiveInt, "beams of the search, 1 for the likeliest next word", 1)


def _run_reason(args: Namespace, line: str) -> None:
    """Write a rationale for each post of a file, with a bundle of a generator (mr-harm)."""
    from miko_clf import manifest
    from miko_clf.data.readers import read_posts
    from miko_clf.evaluate.predictions import generate_rationales

    posts = list(read_posts(args.posts))
    rows = generate_rationales(args.bundle, posts, max_length=args.max_length, beams=args.beams)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    manifest.write_text(args.out, "".join(lines))
    print(f"{len(lines)} rationales written: {args.out}")


def _add_serve_options(parser: Parser) -> None:
    _add_bundle_argument(parser)
    add = parser.add_option
    add("--host", str, "address to listen on", "127.0.0.1")
    add("--port N", NonNegativeInt, "port to listen on, 0 for a free one", 8000)
    add("--threads N", PositiveInt, "threads that compute one batch (default: one a core)")
    say = "share of the positive class among the posts to come (default: as fitted)"
    add("--prior SHARE", PositiveFloat, say)
    add("--ocr", bool, OCR_HELP)
    _add_session_options(parser)


def _add_session_options(parser: Parser) -> None:
    add = parser.add_option
    add("--provider", ("cpu", "cuda"), "what computes", "cpu")
    add("--allow-cpu", bool, "take the CPU where cuda is asked for and not to be had")


def _run_serve(args: Namespace, line: str) -> None:
    """Serve an exported bundle over HTTP.

    POST /score takes posts as JSON; GET /docs describes it all, and GET /health/ready says when it
    is ready.
    """
    from miko_clf.progress import print_notice
    from miko_clf.serve.app import serve_bundle
    from miko_clf.serve.engine import OCR_REMARK, Engine

    engine = Engine.open(
        args.bundle,
        provider=args.provider,
        allow_cpu=args.allow_cpu,
        threads=args.threads,
        prior=args.prior,
        reader=open_optional_reader(args, args.threads),
    )
    if engine.misses_texts:
        print_notice(OCR_REMARK)
    serve_bundle(engine, args.host, args.port)


def _add_ask_options(parser: Parser) -> None:
    add = parser.add_option
    add("url URL", str, "a running server, such as http://127.0.0.1:8000")
    add("posts POSTS", Path, ".jsonl, .csv or .parquet file of posts")
    add("--count N", PositiveInt, "posts to send, from the head of the file", 1)
    add("--wait X", NonNegativeFloat, "seconds in which the server may become ready", 0.0)


def _run_ask(args: Namespace, line: str) -> None:
    """Send the first posts of a file to a running server and print its answer."""
    from miko_clf.serve.client import request_scores

    print_json(request_scores(args.url, args.posts, args.count, args.wait))


def _run_doctor(args: Namespace, line: str) -> None:
    """Say what this machine has, what is missing and the command that mends it.

    Exits with 1 where something is broken.
    """
    from miko_clf import doctor

    findings = doctor.diagnose_installation(find_cache_folder())
    print(doctor.dump_diagnoses(findings) if args.json else doctor.format_diagnoses(findings))
    sys.exit(any(finding.state == "broken" for finding in findings))


TRAIN_COMMANDS: dict[str, Command] = {
    "recipes": Command("[NAME] [--json]", "tiny", _add_recipes_options, _run_recipes),
    "fit": Command(
        "RECIPE --data D --out BUNDLE [options] [--recipe.KEY VALUE ...]",
        "tiny --data runs/world/sarcasm --out runs/demo --recipe.fusion.layers 4",
        _add_fit_options, _run_fit, "train",
    ),
    "export": Command("BUNDLE", "runs/demo", _add_bundle_argument, _run_export, "train,cpu"),
    "score": Command(
        "BUNDLE POSTS -o OUT [options]", "runs/demo posts.jsonl -o scores.jsonl",
        _add_score_options, _run_score, "serve,cpu",
    ),
    "reason": Command(
        "BUNDLE POSTS -o OUT [options]", "runs/mr-harm posts.jsonl -o rationales.jsonl",
        _add_reason_options, _run_reason, "train",
    ),
    "serve": Command(
        "BUNDLE [options]", "runs/demo --port 8000",
        _add_serve_options, _run_serve, "serve,cpu",
    ),
    "ask": Command(
        "URL POSTS [options]", "http://127.0.0.1:8000 runs/world/sarcasm/test.jsonl",
        _add_ask_options, _run_ask,
    ),
    "doctor": Command("[--json]", "", Parser.add_json_option, _run_doctor),
}  # fmt: skip
