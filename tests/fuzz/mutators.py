"""Mutators of a bundle's files. Each is a function of a rng and of a file's bytes, and says whether tokens may change.

An unsigned mutation leaves the manifest's digests as they are, so the bundle must be refused, or mean what it did. A
signed one has new digests, as a stranger would write them. Its tokens may change only if it changes what tokens are a
function of: weights, graphs, the tokenizer, a template, or a field of the manifest in MEANING.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signing import signed as signed_manifest

FROZEN = Path(__file__).parents[1] / "bundles/schema-2"
MANIFEST = "manifest.json"
# Fields of a manifest on which tokens depend: which graph runs what, on which rows, and where an answer ends.
MEANING = {"file", "weights", "eos_token_ids", "context", "verify", "block", "engines", "name", "drafter", "acceptance"}
DEEP = 2000
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 64, 2**16, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.5, 1e308,
    float("nan"), float("inf"), "", "a", "\x1b[2J", "\0", "\ud800", "\u202e", "../../etc/passwd", "/dev/zero",
    "a" * 9999,
    "decode", "target", "onnx", "inductor", "weights.safetensors", "float16", "bfloat16", "int4",
    [], {}, [[]], [0], [-1, 0, 1], {"a": 1}, [1] * 1000,
)  # fmt: skip
TEMPLATES = (
    "{% for i in range(10**9) %}{% endfor %}", "{{ 'a' * 10**10 }}", "{{ 1 / 0 }}", "{{ messages.x.y.z }}",
    "{{ ''.__class__.__mro__ }}", "{% for %}", "{{ raise_exception('no\x1b[2J') }}", "{{ [1] | join(messages) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ '%s' % messages }}", "{{ '{0.__class__}'.format(1) }}",
    "{% set x = namespace() %}{{ x.y }}", "{{ messages[0].content | tojson | safe | replace('a', 'b' * 10**8) }}",
    "{{ ('a' * 99999) ~ ('b' | center(10**9)) }}", "{" * 3000, "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "\ufeff{{ messages }}", "{{ messages | sort(attribute='x') }}", "{{ strftime_now('%' * 1000) }}",
    "{{ 1 ** 2 ** 40 }}", "{{ loop.index }}", "{% include 'x' %}", "{% extends 'x' %}",
    "{% import 'os' as os %}", "{{ lipsum(10**6) }}",
)  # fmt: skip


PATTERNS = (
    "(a+)+$", r"(\w+\s?)+$", r"(.|\s)*\Z", "(x|x)*y", ".*.*.*.*=", r"(?=(\w+))\w*,\1", r"(\w*)*[,;]", "[", "(", "a**",
    "a{0,99999}", "(?<=a+)b", r"\p{Nope}", "(" * 500 + ")" * 500, "((((a{0,9}){0,9}){0,9}){0,9}){0,9}", "", "^", "|",
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A mutated bundle: the files that differ from the frozen one, and what it may do.

    Attributes:
        kind: the mutator's name.
        what: the place of the change, for the report.
        files: the new content by name.
        may_change: whether other tokens are right, too.
        arguments: the command line, without the bundle.
    """

    kind: str
    what: str
    files: dict[str, bytes]
    may_change: bool
    arguments: tuple[str, ...]


def mutation(seed: int) -> Mutation:
    """Return the mutation of a seed, always the same one."""
    rng = random.Random(seed)
    kind = rng.choice(sorted(MUTATORS))
    return MUTATORS[kind](rng, rng.random() < 0.75)


def write(mutated: Mutation, directory: Path) -> Path:
    """Write a mutated bundle. Its other files are links to the frozen ones, as in a snapshot of the hub."""
    directory.mkdir(parents=True)
    for file in FROZEN.iterdir():
        if file.name not in mutated.files:
            (directory / file.name).symlink_to(file)
    for name, data in mutated.files.items():
        (directory / name).write_bytes(data)
    return directory


def _generate(rng: random.Random) -> tuple[str, ...]:
    recipe = rng.choice(("plain", "plain", "prompt-lookup", "early-exit", "dynamic-tree", "lookahead", "layer-skip"))
    return "generate", "--prompt", "def wrap(", "--max-new-tokens", "6", "--recipe", recipe, "--json"


def _signed(name: str, data: bytes) -> dict[str, bytes]:
    """Return a changed file, and the manifest that says so."""
    manifest = json.loads((FROZEN / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {name: data, MANIFEST: signed_manifest(manifest)}


def _changed(name: str, data: bytes, signed: bool) -> dict[str, bytes]:
    return _signed(name, data) if signed else {name: data}


def mutate_bytes(rng: random.Random, data: bytes, most: int = 4) -> bytes:
    """Flip, cut, repeat or insert bytes, most often near the beginning."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(max(1, rng.choice((len(changed), min(len(changed), 400)))))
        choice = rng.randrange(5)
        if choice == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif choice == 1:
            changed[at:at] = rng.randbytes(rng.randint(1, 9))
        elif choice == 2:
            del changed[at : at + rng.choice((1, 4, 100, len(changed)))]
        elif choice == 3:
            changed[at : at + 8] = struct.pack("<q", rng.choice((-1, 0, 2**31, 2**62)))
        else:
            changed[at:at] = changed[at : at + rng.choice((1, 20, 500))]
    return bytes(changed)


def mutate_json(rng: random.Random, data: Any) -> list[str]:
    """Change one place of plain data: put something odd there, remove it, repeat it, or take a neighbour's value.

    Returns:
        The names on the way to it.
    """
    way: list[str] = []
    while True:
        keys: list[Any] = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not keys:
            return way
        key = rng.choice(keys)
        way.append(str(key))
        if not isinstance(data[key], (dict, list)) or not data[key] or rng.random() < 0.15:
            break
        data = data[key]
    choice = rng.randrange(8)
    if choice == 0:
        del data[key]
    elif choice == 1:
        data[key] = copy.deepcopy(data[rng.choice(keys)])
    elif choice == 2 and isinstance(data, dict):
        data[str(rng.choice(ODD))] = data.pop(key)
    elif choice == 2:
        data.append(copy.deepcopy(data[key]))
    elif choice == 3 and isinstance(data[key], int) and not isinstance(data[key], bool):
        data[key] += rng.choice((-1, 1, 7, -data[key] * 2))
    else:
        data[key] = rng.choice(ODD)
    return way


def manifest(rng: random.Random, signed: bool) -> Mutation:
    data = json.loads((FROZEN / MANIFEST).read_text())
    way = mutate_json(rng, data)
    content = signed_manifest(data) if signed else json.dumps(data).encode()
    may_change = signed and not MEANING.isdisjoint(way)
    return Mutation("manifest", f"{'.'.join(way)} signed={signed}", {MANIFEST: content}, may_change, _generate(rng))


def recipe(rng: random.Random, signed: bool) -> Mutation:
    """Change a recipe: its drafter's parameters most often, which must never change the tokens."""
    data = json.loads((FROZEN / MANIFEST).read_text())
    part = rng.choice(data["recipes"])
    arguments = "generate", "--prompt", "def wrap(x): return wrap(", "--max-new-tokens", "8", "--recipe", part["name"]
    if part.get("parameters") and rng.random() < 0.7:
        part = part["parameters"]
    way = mutate_json(rng, part)
    content = signed_manifest(data) if signed else json.dumps(data).encode()
    may_change = signed and not {"verify", "engines", "drafter", "acceptance", "lossless"}.isdisjoint(way)
    what = f"{arguments[-1]} {'.'.join(way)} signed={signed}"
    return Mutation("recipe", what, {MANIFEST: content}, may_change, (*arguments, "--no-guard", "--json"))


def manifest_bytes(rng: random.Random, signed: bool) -> Mutation:
    whole = (FROZEN / MANIFEST).read_bytes()
    nested = b"[" * DEEP + b"]" * DEEP
    data = whole.replace(b'"schema": 2', b'"schema": 2, "extra": ' + nested, 1) if signed else mutate_bytes(rng, whole)
    return Mutation("manifest_bytes", f"nested={signed}", {MANIFEST: data}, False, _generate(rng))


def onnx_bytes(rng: random.Random, signed: bool) -> Mutation:
    name = rng.choice(("decode.onnx", "prefill.onnx"))
    data = mutate_bytes(rng, (FROZEN / name).read_bytes())
    return Mutation("onnx_bytes", f"{name} signed={signed}", _changed(name, data, signed), signed, _generate(rng))


def onnx_fields(rng: random.Random, signed: bool) -> Mutation:
    """Change a tensor's place, shape or type, or an operator, by fields rather than by bytes."""
    from specc.runtime.engines.onnx_file import parse

    name = rng.choice(("decode.onnx", "prefill.onnx"))
    model = parse((FROZEN / name).read_bytes())
    tensor = rng.choice(model.graph.initializer)
    number = rng.choice((-1, 0, 1, 2**31, 2**63 - 1))
    choice = rng.randrange(7)
    if choice == 0 and tensor.external_data:
        rng.choice(tensor.external_data).value = str(rng.choice(ODD))[:100].encode("utf-8", "replace").decode()
    elif choice == 1:
        tensor.external_data.add(key="prepacked_0", value=f"MatMul|{number};{rng.choice((0, 4, 10**9))};0")
    elif choice == 2 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = number
    elif choice == 3:
        tensor.data_type = rng.choice((-1, 0, 2, 8, 11, 22, 99))
    elif choice == 4:
        rng.choice(model.graph.node).op_type = rng.choice(("Loop", "If", "Gather", "EPContext", "", "Identity"))
    elif choice == 5:
        del rng.choice(model.graph.node).input[:]
    else:
        rng.choice(model.opset_import).version = number
    data = model.SerializeToString()
    what = f"{name} {tensor.name} {choice} signed={signed}"
    return Mutation("onnx_fields", what, _changed(name, data, signed), signed, _generate(rng))


def weights(rng: random.Random, signed: bool) -> Mutation:
    """Change the header of the weights file, or a few bytes of the weights."""
    name = "weights.safetensors"
    whole = (FROZEN / name).read_bytes()
    if rng.random() < 0.5:
        at = rng.randrange(len(whole))
        data = whole[:at] + rng.randbytes(4) + whole[at + 4 :]
    else:
        data = mutate_bytes(rng, whole, 2)
    return Mutation("weights", f"signed={signed}", _changed(name, data, signed), signed, _generate(rng))


def tokenizer(rng: random.Random, signed: bool) -> Mutation:
    name = "tokenizer.json"
    whole = (FROZEN / name).read_bytes()
    if rng.random() < 0.2:
        data = mutate_bytes(rng, whole)
    else:
        tree = json.loads(whole)
        part = rng.choice((tree, tree["model"]))
        mutate_json(rng, part)
        if rng.random() < 0.3:
            tree["normalizer"] = {"type": "Sequence", "normalizers": [DOUBLE] * rng.choice((3, 40))}
        if rng.random() < 0.2:
            pattern = {"Regex": rng.choice(PATTERNS)}
            split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": rng.random() < 0.5}
            replace = {"type": "Replace", "pattern": pattern, "content": rng.choice(("", "a"))}
            part, state = rng.choice((("pre_tokenizer", split), ("normalizer", replace), ("decoder", replace)))
            tree[part] = state
        data = json.dumps(tree).encode()
    return Mutation("tokenizer", f"signed={signed}", _changed(name, data, signed), signed, _generate(rng))


def tokenizer_config(rng: random.Random, signed: bool) -> Mutation:
    name = "tokenizer_config.json"
    whole = (FROZEN / name).read_bytes()
    odd = (b"[]", b"3", b"\xff\xfe", b'{"a": "\xe9"}', b"[" * DEEP, b"null", b'"x"', b"")
    data = rng.choice((*odd, mutate_bytes(rng, whole)))
    if rng.random() < 0.5:
        tree = json.loads(whole)
        mutate_json(rng, tree)
        data = json.dumps(tree).encode()
    return Mutation("tokenizer_config", f"signed={signed}", _changed(name, data, signed), signed, _generate(rng))


def template(rng: random.Random, signed: bool) -> Mutation:
    name = "chat_template.jinja"
    whole = (FROZEN / name).read_bytes()
    data = rng.choice(TEMPLATES).encode() if rng.random() < 0.7 else mutate_bytes(rng, whole)
    arguments = "generate", "--chat", "--prompt", "a", "--max-new-tokens", "2", "--json"
    return Mutation("template", f"{data[:40]!r} signed={signed}", _changed(name, data, signed), signed, arguments)


def golden(rng: random.Random, signed: bool) -> Mutation:
    name = "golden.jsonl"
    whole = (FROZEN / name).read_bytes()
    if rng.random() < 0.3:
        data = mutate_bytes(rng, whole)
    else:
        cases = [json.loads(line) for line in whole.splitlines()]
        mutate_json(rng, cases)
        data = "".join(json.dumps(case) + "\n" for case in cases).encode()
    return Mutation("golden", f"signed={signed}", _changed(name, data, signed), True, ("test", "--recipe", "plain"))


DOUBLE = {"type": "Replace", "pattern": {"Regex": "(.)"}, "content": "aa"}
MUTATORS: dict[str, Callable[[random.Random, bool], Mutation]] = {
    "manifest": manifest,
    "recipe": recipe,
    "manifest_bytes": manifest_bytes,
    "onnx_bytes": onnx_bytes,
    "onnx_fields": onnx_fields,
    "weights": weights,
    "tokenizer": tokenizer,
    "tokenizer_config": tokenizer_config,
    "template": template,
    "golden": golden,
}
