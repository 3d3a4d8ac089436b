"""What the commands that train, compare, export and serve call."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from miko_clf.cli import options
from miko_clf.cli.parser import UsageError, cache_folder, label_map, needed
from miko_clf.errors import MikoError


def _fit(given: Namespace, line: str) -> None:
    from miko_clf import recipe as recipes

    recipe = recipes.load(given.source, _overrides(given))
    if given.print_config:
        print(recipes.dump(recipe), end="")
        return
    needed(given, "data", "out")
    _check_trackers(given.tracker)
    data, skipped = opened(given)
    from miko_clf import pipeline
    from miko_clf.train.loop import StoppedError

    plan = pipeline.Plan(
        given.out,
        cache=cache(given),
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
    tell_skipped(skipped, given.out.with_name(f"{given.out.name}.skipped.json"))
    print(f"bundle: {given.out}")
    bundle, where = shlex.quote(str(given.out)), shlex.quote(str(given.data))
    print(f"next:   miko-clf evaluate {bundle} --data {where} --split test")
    print(f"        miko-clf export {bundle}")


def _overrides(given: Namespace) -> dict[str, Any]:
    """Return the keys of the recipe that the command line sets, dotted, with their values."""
    flat = vars(given.as_flat())
    keys = {name: name.removeprefix("recipe.") for name in flat if name.startswith("recipe.")}
    found = {key: flat[name] for name, key in keys.items()}
    return found if given.seed is None else {**found, "seed": given.seed}


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        if name not in options.TRACKERS:
            raise UsageError(
                f"no tracker called {name!r}; choose from {', '.join(options.TRACKERS)}"
            )
        if find_spec(name) is None:
            raise MikoError(f"tracker {name} is not installed; pip install {name}")


def cache(given: Namespace) -> Path | None:
    return None if given.no_cache else given.cache


def opened(given: Namespace) -> tuple[Any, Any]:
    """Return the data folder and the report of skipped posts, none where a bad post raises."""
    from miko_clf.data.folder import open_folder
    from miko_clf.data.read import SkipReport

    report = SkipReport() if given.skip_bad else None
    data = open_folder(
        given.data,
        label_map=label_map(given.label_map),
        split_seed=given.split_seed,
        report=report,
        task=given.task,
    )
    return data, report


def tell_skipped(report: Any, path: Path) -> None:
    if report is not None and len(report):
        report.write(path)
        print(f"{len(report)} bad posts were passed over, see {path}", file=sys.stderr)


def _export(given: Namespace, line: str) -> None:
    from miko_clf.export.write import export

    print(export(given.bundle).line())
    bundle = shlex.quote(str(given.bundle))
    print(f"next: miko-clf score {bundle} POSTS -o scores.jsonl, or miko-clf serve {bundle}")


def _world(given: Namespace, line: str) -> None:
    from rich.console import Console
    from rich.progress import track

    from miko_clf.data.world import write_world

    def watch(pictures: Sequence[Any]) -> Iterable[Any]:
        return track(pictures, "drawing", console=Console(stderr=True))

    folder = write_world(given.out, seed=given.seed, num_posts=given.posts, progress=watch)
    print(f"demo world: {folder}")
    where = shlex.quote(str(folder / "sarcasm"))
    print(f"next:       miko-clf fit tiny --data {where} --out runs/demo")


def _recipes(given: Namespace, line: str) -> None:
    from miko_clf import recipe as recipes

    if given.name:
        print(recipes.dump(recipes.load(given.name)), end="")
        return
    for name in recipes.names():
        recipe = recipes.load(name)
        towers = [tower for tower in (recipe.image, recipe.text) if tower]
        shown = [f"{tower.name} ({'frozen' if tower.frozen else 'learns'})" for tower in towers]
        slots = "student slots" if recipe.slots else "no slots"
        epochs = f"{recipe.reasoning.epochs} reasoning + {recipe.task.epochs} task epochs"
        print(f"{name}\n  reads   {', '.join(recipe.inputs)}")
        print(f"  towers  {' + '.join(shown)}\n  trains  {epochs}, {slots}")


def _doctor(given: Namespace, line: str) -> None:
    from miko_clf import doctor

    found = doctor.examine(cache_folder())
    print(doctor.as_json(found) if given.json else doctor.page(found))
    sys.exit(any(each.state == "broken" for each in found))


def _score(given: Namespace, line: str) -> None:
    from miko_clf.serve.shards import score

    tally = score(
        given.bundle,
        given.posts,
        given.out,
        arm=given.arm,
        provider=given.provider,
        allow_cpu=given.allow_cpu,
        skip_bad=given.skip_bad,
        batch_size=given.batch_size,
        prior=_prior(given.prior),
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


def _prior(given: str | None) -> Any:
    """Return a share, `auto` or none."""
    if given in (None, "auto"):
        return given
    try:
        return float(given)
    except ValueError:
        raise UsageError(f"--prior {given!r} is neither a share nor auto") from None


def _reason(given: Namespace, line: str) -> None:
    from miko_clf import manifest
    from miko_clf.data.read import read_posts
    from miko_clf.evaluate.rationales import write_rationales

    posts = list(read_posts(given.posts))
    found = write_rationales(given.bundle, posts, max_length=given.max_length, beams=given.beams)
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in found]
    manifest.write_text(given.out, "".join(lines))
    print(f"{len(lines)} rationales written: {given.out}")


def _serve(given: Namespace, line: str) -> None:
    from miko_clf.serve.app import serve

    serve(
        given.bundle,
        given.host,
        given.port,
        provider=given.provider,
        allow_cpu=given.allow_cpu,
        threads=given.threads,
        prior=given.prior,
    )


def _ask(given: Namespace, line: str) -> None:
    from miko_clf.serve.ask import ask

    answer = ask(given.url, given.posts, given.count, given.wait)
    print(json.dumps(answer, indent=2, ensure_ascii=False))


ACTS: Mapping[str, Callable[[Namespace, str], None]] = {
    "fit": _fit,
    "export": _export,
    "score": _score,
    "reason": _reason,
    "serve": _serve,
    "ask": _ask,
    "world": _world,
    "recipes": _recipes,
    "doctor": _doctor,
}
