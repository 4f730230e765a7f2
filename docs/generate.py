"""Write the parts of the documentation that come from the code: the table of methods, and the manifest's classes.

    python docs/generate.py            # update docs/recipes.md, both manifest.schema.json and README.md
    python docs/generate.py --check    # change nothing; name the files that are out of date and exit with status 1

A page marks such a part with two comments: <!-- generated: NAME --> and <!-- end of NAME -->.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from specc.recipes import METHODS, Method
from specc.recipes.axes import caches
from specc.recipes.axis_words import axis_words
from specc.recipes.systems import SYSTEMS, System
from specc.runtime.json_schema import json_schema
from specc.runtime.manifest import SCHEMA, Manifest

ROOT = Path(__file__).resolve().parents[1]
AXES = axis_words(METHODS)
README_RECIPES = (
    "prompt-lookup",
    "recycled-lookup",
    "cascade",
    "quantized-self-draft",
    "layer-skip",
    "early-exit",
    "draft-model",
    "token-recycling",
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a Markdown table."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def readme_recipes() -> str:
    """Format README's selection of recipes and the number of all of them."""
    rows = ((f"`{name}`", METHODS[name].title, METHODS[name].topology) for name in README_RECIPES)
    total = f"These are {len(README_RECIPES)} of {len(METHODS)} recipes. All are in [docs/recipes.md](docs/recipes.md)."
    return f"{table(('recipe', 'method', 'topology'), rows)}\n\n{total}"


def recipe_summary() -> str:
    """Format one row for each method."""
    rows = (
        [f"[`{m.name}`](#{m.name})", m.title, m.topology, m.length, m.acceptance, needs(m)] for m in METHODS.values()
    )
    return table(("recipe", "method", "topology", "length", "acceptance", "needs"), rows)


def recipe_details() -> str:
    """Format a section for each method: its paper, its facts, its parameters."""
    return "\n\n".join(section(m) for m in METHODS.values())


def section(m: Method) -> str:
    """Format the section of one method. Its anchor is the name of the recipe."""
    facts = {
        "paper": m.paper or "none",
        "drafter": f"`{m.drafter}`",
        "topology": m.topology,
        "length of a draft": m.length,
        "schedule": m.schedule,
        "caches of the draft": ", ".join(caches(m)) or "none",
        "acceptance": f"`{m.acceptance}`",
        "lossless": "yes" if m.lossless else "no",
        "needs": needs(m),
        **({"train its head": f"`{m.training}`"} if m.training else {}),
        "compiled without `--recipe`": "yes" if m.by_default else "no",
        "departures from the paper": " ".join(m.departures) or "none",
    }
    lines = [
        f"### {m.name}",
        "",
        f"{m.title}.",
        "",
        m.about,
        "",
        f"Try it when: {m.try_when}",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
    ]
    if m.parameters:
        rows = (
            [f"`{n}`", "" if p.default is None else f"`{p.default}`", p.paper, p.help] for n, p in m.parameters.items()
        )
        lines += ["", table(("parameter", "default", "in the paper", "meaning"), rows)]
    return "\n".join(lines)


def axis(name: str, *titles: str) -> str:
    """Format one row for each word of an axis.

    Args:
        name: the axis.
        titles: of the columns: the word, its meaning, and what goes with it.
    """
    return table(titles, ([code([word.name]), word.help, *map(code, word.goes_with.values())] for word in AXES[name]))


def code(words: Iterable[str]) -> str:
    """Format words as code, with commas."""
    return ", ".join(f"`{word}`" for word in words)


def systems() -> str:
    """Format one row for each published system."""
    rows = ([str(s.number), s.name, papers(s), s.state, recipes_of(s), s.missing] for s in SYSTEMS)
    counts = Counter(s.state for s in SYSTEMS)
    total = f"{counts['works']} work, {counts['in part']} work in part, {counts['not yet']} do not yet."
    return f"{table(('number', 'system', 'arXiv', 'state', 'recipes', 'what is missing'), rows)}\n\n{total}"


def papers(system: System) -> str:
    """Link the papers of a system."""
    return ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in system.paper.split(", "))


def recipes_of(system: System) -> str:
    """Link the recipes of a system."""
    return ", ".join(f"[`{name}`](#{name})" for name in system.recipes)


def needs(m: Method) -> str:
    """Say which options a method cannot do without."""
    return ", ".join(f"`--{name}`" for name in m.needs) or "nothing more"


def manifest_schema() -> str:
    """Format the JSON Schema of a manifest in the newest schema version, its digest included."""
    schema = json_schema(Manifest)
    schema["properties"]["schema"]["const"] = SCHEMA
    schema["properties"]["manifest_sha256"] = {
        "description": "of the file, with 64 zeros in the place of these digits; the file ends with this field.",
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
    }
    schema["required"].append("manifest_sha256")
    return json.dumps(schema, indent=1) + "\n"


PARTS = {
    ROOT / "README.md": {"readme-recipes": readme_recipes},
    ROOT / "docs" / "recipes.md": {
        "recipe-summary": recipe_summary,
        "systems": systems,
        "drafters": partial(
            axis, "drafters", "drafter", "what it is", "topologies", "lengths", "acceptance rules", "recipes"
        ),
        "topologies": partial(axis, "topologies", "topology", "what a draft is", "drafters"),
        "lengths": partial(axis, "lengths", "length", "a draft goes on", "parameters", "drafters"),
        "rules": partial(axis, "acceptance rules", "acceptance rule", "what it does", "parameters", "drafters"),
        "schedules": partial(axis, "schedules", "schedule", "what it is", "recipes"),
        "recipe-details": recipe_details,
    },
}
# The package for JavaScript carries the schema, since it checks manifests by it.
SCHEMAS = (ROOT / "docs" / "manifest.schema.json", ROOT / "runtimes" / "javascript" / "manifest.schema.json")
FILES = dict.fromkeys(SCHEMAS, manifest_schema)


def updated(text: str, parts: Mapping[str, str]) -> str:
    """Replace the marked parts of a page.

    Args:
        text: the page.
        parts: the new content of each part, by its name.

    Raises:
        ValueError: a part has no pair of marks in the page.
    """
    for name, content in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        count = len(re.findall(f"{re.escape(begin)}.*?{re.escape(end)}", text, flags=re.S))
        if count != 1:
            raise ValueError(f"the page has {count} parts {name!r}; write {begin} and {end} once")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def pages() -> dict[Path, str]:
    """Return the up-to-date text of each page that has generated parts, and of each file that is generated whole."""
    texts = {
        page: updated(page.read_text(encoding="utf-8"), {name: make() for name, make in parts.items()})
        for page, parts in PARTS.items()
    }
    return {**texts, **{file: make() for file, make in FILES.items()}}


def main() -> int:
    """Update the pages, or check them. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    check = parser.parse_args().check
    stale = {page: text for page, text in pages().items() if page.read_text(encoding="utf-8") != text}
    for page, text in stale.items():
        print(f"{page.relative_to(ROOT)} is out of date" if check else f"updated {page.relative_to(ROOT)}")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
