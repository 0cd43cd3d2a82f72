"""Put the measured numbers of `results/` into the documents that quote them, so that nobody types one.

    python benchmarks/update_docs.py          # after a benchmark has written its JSON
    python benchmarks/update_docs.py --check  # says what differs and changes nothing

A document marks what it quotes with comments that no reader sees, around whole lines or inside one:

    <!-- results: NAME -->…<!-- /results -->

`quotes/` makes the text for each name. In `NUMBERS_ONLY_QUOTED` a measured number outside of such a pair, of code and
of links is an error.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from harness import RESULTS
from quotes import QUOTES
from quotes.results import Results

ROOT = Path(__file__).parents[1]
NUMBERS_ONLY_QUOTED = ("README.md", "docs/benchmarks.md")

_PAIR = re.compile(r"<!-- results: (?P<name>\S+) -->(?P<text>.*?)<!-- /results -->", re.DOTALL)
_MARKER = re.compile(r"<!-- /?results\b")
_CODE_OR_LINK = re.compile(r"^```.*?^```$|`[^`\n]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
_MEASURED = re.compile(r"[\d.,]*\d\s?(?:%|×(?!\d)|(?:ms|[KMG]i?B|s|seconds|times|frames a second)\b)")


class QuoteError(Exception):
    """A document that cannot be filled in; the message says why."""


def documents(root: Path) -> list[Path]:
    """What may quote results."""
    return [root / "README.md", *sorted(root.glob("docs/*.md")), *sorted(root.glob("examples/**/*.md"))]


def fill_in(text: str, results: Results) -> str:
    """The document with every quote as the results have it.

    Raises:
        QuoteError: a marker without its other half, an unknown name, or a marker where it would swallow Markdown.
    """

    def quote(pair: re.Match[str]) -> str:
        name, old = pair["name"], pair["text"]
        if name not in QUOTES:
            raise QuoteError(f"no quote is called {name!r}; there are {', '.join(sorted(QUOTES))}")
        new = QUOTES[name](results)
        is_block = old.startswith("\n")
        if not is_block and ("\n" in new or text[: pair.start()].rpartition("\n")[2].strip(" -*") == ""):
            # A line that begins with a comment is HTML to its end: nothing in it would be rendered.
            raise QuoteError(f"put the markers of {name!r} on lines of their own: inside a line they must follow text")
        # Some renderers take what follows a table for its next row, hence the blank line.
        new = f"\n{new}\n\n" if is_block else new
        return f"<!-- results: {name} -->{new}<!-- /results -->"

    rest = _PAIR.sub("", text)
    if alone := _MARKER.search(rest):
        raise QuoteError(f"half a pair of markers, or one inside another: {rest[alone.start() :].splitlines()[0]!r}")
    return _PAIR.sub(quote, text)


def typed_numbers(text: str) -> list[str]:
    """Measured numbers that stand outside of quotes, code and links."""
    return [match[0] for match in _MEASURED.finditer(_CODE_OR_LINK.sub("", _PAIR.sub("", text)))]


def unused_quotes(texts: list[str]) -> set[str]:
    """Names that no document uses."""
    return QUOTES.keys() - {pair["name"] for text in texts for pair in _PAIR.finditer(text)}


def update(root: Path, results: Results, *, check: bool) -> list[str]:
    """Fill in all documents below `root`, or only `check` them.

    Returns:
        What is wrong, a diff for each document that was not as the results have it.
    """
    wrong = []
    texts = {path: path.read_text(encoding="utf-8") for path in documents(root)}
    for path, old in texts.items():
        name = path.relative_to(root).as_posix()
        try:
            new = fill_in(old, results)
        except QuoteError as exc:
            wrong.append(f"{name}: {exc}")
            continue
        if new != old and check:
            diff = difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"{name}, as it is", f"{name}, from the results", n=0, lineterm=""
            )
            wrong.append("\n".join(diff))
        elif new != old:
            path.write_text(new, encoding="utf-8")
        if name in NUMBERS_ONLY_QUOTED and (typed := typed_numbers(old)):
            wrong.append(f"{name}: quote measured numbers from results instead of typing {', '.join(map(repr, typed))}")
    if unused := unused_quotes(list(texts.values())):
        wrong.append(f"no document quotes {', '.join(sorted(unused))}")
    return wrong


def main(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail if a document is out of date.")] = False,
) -> None:
    """Write the numbers of benchmarks/results into the documents."""
    wrong = update(ROOT, Results(RESULTS), check=check)
    for each in wrong:
        print(each, file=sys.stderr)
    if wrong:
        raise SystemExit("Run `python benchmarks/update_docs.py`, and correct by hand what it still names.")


if __name__ == "__main__":
    typer.run(main)
