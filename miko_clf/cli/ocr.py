"""The command that reads words off pictures, and how others are given what reads them."""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from miko_clf.cli.parser import Command, Parser, choose_cache, print_json

OCR_HELP = "read posts without text off their pictures (needs the extra ocr)"


def _add_ocr_options(parser: Parser) -> None:
    add = parser.add_option
    add("posts POSTS", Path, ".jsonl, .csv or .parquet file of posts")
    add("-o,--out OUT", Path, "JSONL file of the same posts", required=True)
    add("--threads N", PositiveInt, "threads that read one picture (default: one a core)")
    add("--skip-bad", bool, "pass over bad posts and list them in a file")
    parser.add_json_option()


def _run_ocr(args: Namespace, line: str) -> None:
    """Read the words on the pictures of posts that have no text.

    OUT has every post with every key that it had, and where a text was read `text`, `text_source`
    and `text_confidence`. Texts that are given stay. It is written whole or not at all; a run that
    was stopped or killed goes on when the same command is given again.
    """
    from miko_clf.data.ocr import open_picture_reader, write_texts

    reader = open_picture_reader(args.threads)
    tally = write_texts(args.posts, args.out, reader, skip_bad=args.skip_bad)
    if args.json:
        print_json({**tally._asdict(), "out": str(args.out), "engine": reader.engine})
    else:
        _print_summary(tally, args.out)


def _print_summary(tally: Any, out: Path) -> None:
    """Print how many texts were read, and on how many pictures nothing was found."""
    num_pictures = tally.read + tally.empty
    pace = "" if tally.milliseconds is None else f", {tally.milliseconds:,.0f} ms a picture"
    print(f"texts read:    {tally.read:,} of {num_pictures:,} pictures{pace}")
    print(f"nothing found: {tally.empty:,}")
    print(f"given before:  {tally.given:,}")
    if tally.bad:
        print(f"bad posts:     {tally.bad:,}, see {out}.skipped.json")
    print(f"posts:         {out}")
    print(f"next:          miko-clf data {shlex.quote(str(out))}")


def read_data_by_ocr(data: Any, args: Namespace) -> Any:
    """Return the data with texts of pictures where `--ocr` asks for them.

    What was read is kept in the cache beside the features, unless there is to be none.
    """
    if not args.ocr:
        return data
    from miko_clf.data.ocr import CACHE_FILE, CachedPictureReader, OcrSplits, open_picture_reader

    cache = choose_cache(args)
    file = None if cache is None else cache / CACHE_FILE
    return OcrSplits(data, CachedPictureReader(open_picture_reader(), file))


def open_optional_reader(args: Namespace, threads: int | None = None) -> Any:
    """Return what reads pictures where `--ocr` asks for it, else None."""
    if not args.ocr:
        return None
    from miko_clf.data.ocr import open_picture_reader

    return open_picture_reader(threads)


OCR_COMMANDS: dict[str, Command] = {
    "ocr": Command(
        "POSTS -o OUT [options]", "memes.jsonl -o memes-read.jsonl", _add_ocr_options, _run_ocr,
        "ocr,cpu",
    ),
}  # fmt: skip
