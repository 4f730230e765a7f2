"""Jinja as transformers runs it on chat templates, with bounds on time and memory.

A template comes with a checkpoint, so it is foreign code. Jinja's sandbox keeps it away from Python, but does not keep
it from looping for hours or from filling the memory. This module measures what a template does, and stops it:

- Each iteration of a loop, each call, each filter and each operator looks at a deadline in processor time.
- What could grow at once (`"a" * n`, `center(n)`, `replace`, a width in a format) is estimated before it runs.
- What was made is counted: one value, all values together, and the text that comes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_eval_context
from jinja2.visitor import NodeTransformer

from .chat_meter import METER, Limits, TooMuchError, metered

BITS = 100_000  # Of an integer.
WIDTH = 10_000  # Of a padding, an indentation or a batch.
# Filters and methods whose result has a length that an integer argument says.
WIDTHS = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes", "indent", "batch", "slice", "round", "tojson"}
)
# Filters and methods that may write an argument many times into their value.
INSERTS = frozenset({"expandtabs", "translate", "indent", "wordwrap", "urlize", "tojson", "xmlattr"})


class RefusalError(TemplateError):
    """A call of `raise_exception` by a template."""


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes)) else 0


def _check_growth(name: str, value: Any, arguments: Iterable[Any]) -> None:
    """Estimate the result of a filter or a method, before it runs.

    Args:
        name: the name of the filter or the method.
        value: what it is applied to.
        arguments: its further arguments.

    Raises:
        TooMuchError: the result would be too large.
    """
    meter, arguments = METER.get(), list(arguments)
    meter.tick()
    if name in WIDTHS and any(isinstance(a, int) and abs(a) > WIDTH for a in arguments):
        raise TooMuchError(f"`{name}` has an argument above {WIDTH}")
    if name in INSERTS:
        texts = [t for a in arguments for t in (a.values() if isinstance(a, Mapping) else [a])]
        meter.check(_length(value) * max(map(_length, texts), default=0))
    if name == "replace" and len(arguments) > 1 and isinstance(value, str):
        old, new = str(arguments[0]), str(arguments[1])
        meter.check(value.count(old) * len(new))
    if name == "sum" and any(isinstance(a, (list, tuple)) for a in arguments):
        raise TooMuchError("`sum` adds lists")
    if name == "generate_lorem_ipsum" and any(isinstance(a, int) and a > 100 for a in arguments):
        raise TooMuchError("`lipsum` has an argument above 100")
    if name in ("format", "format_map", "%") and isinstance(value, str):
        _check_format(value, arguments)


def _check_format(form: str, arguments: list[Any]) -> None:
    """Estimate a formatted text: its widths, and its arguments wherever they may be written.

    Raises:
        TooMuchError: the text would be too large.
    """
    meter = METER.get()
    flat: list[Any] = []
    for argument in arguments:
        items = argument.values() if isinstance(argument, Mapping) else argument
        flat += items if isinstance(argument, (tuple, Mapping)) else [argument]
    places = form.count("{") + form.count("%")
    widths = max((abs(a) for a in flat if isinstance(a, int)), default=0) * (form.count("*") + form.count(":{"))
    digits = re.findall(r"\d+", form)
    if any(len(d) > 8 for d in digits):
        raise TooMuchError("a format has a width above 8 digits")
    meter.check(sum(map(int, digits)) + widths + sum(map(meter.size, flat)) * max(1, places))


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is estimated before it runs, and whose result counts."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja passes its own state before the value.

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        before, value, rest = arguments[:first], arguments[first], arguments[first + 1 :]
        if name == "join":
            value = _items(value, [*rest, *options.values()])
        _check_growth(name, value, [*rest, *options.values()])
        result = function(*before, value, *rest, **options)
        if isinstance(result, (str, list, tuple, dict)):
            METER.get().charge(result)
        return result

    return run


def _items(values: Any, separators: Iterable[Any]) -> Any:
    """Return what will be joined as a list, and count it. What cannot be joined comes back as it is."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        return values
    meter, items, size = METER.get(), [], 0
    separator = max(map(_length, separators), default=0)
    for item in values:
        size += meter.size(item) + separator
        meter.check(size)
        items.append(item)
    return items


class _Meters(NodeTransformer):
    """A rewriter of a template's syntax tree that adds what Jinja does not let an environment intercept."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("tick", [], node)).set_lineno(node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("join_text", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._literal(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._literal(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        if node.ctx != "load":
            return node
        return self._literal(node)

    def _literal(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        constant = (nodes.Const, nodes.Pair, nodes.List, nodes.Dict, nodes.Tuple)
        if all(isinstance(n, constant) for n in node.find_all(nodes.Node)):
            return node
        return _call("count", [node], node)


def _call(method: str, arguments: list[nodes.Expr], place: nodes.Node) -> nodes.Call:
    """Return the node of a call of one of the environment's methods."""
    call = nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)
    call.set_lineno(place.lineno, override=True)
    return call


class _Generation(Extension):
    """The tag `generation`, by which a template marks the model's own text. It writes what it contains."""

    tags = {"generation"}  # noqa: RUF012  Jinja reads it from the class

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """The global `dict` of a template: it makes a dict, and has nothing of the type."""

    def __call__(self, *arguments: Any, **options: Any) -> dict[Any, Any]:
        return dict(*arguments, **options)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _Namespace(Namespace):
    """The global `namespace` of a template, without attributes that begin with an underscore."""

    def __init__(*arguments: Any, **options: Any) -> None:
        # An attribute of a template may have the name `self`, so no parameter has it.
        self, *rest = arguments
        attributes = dict(*rest, **options)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}: it begins with an underscore")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment that transformers renders chat templates in, with meters."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.finalize = self._charge_output
        self.filters = {name: _metered_filter(name, f) for name, f in {**self.filters, "tojson": _to_json}.items()}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        METER.get().check(len(source))
        tree: nodes.Template = _Meters().visit(super()._parse(source, name, filename))
        return tree

    def tick(self) -> None:
        """Do nothing: `call` looks at the clock. Loops of a template call this method."""

    def count(self, value: Any) -> Any:
        """Return a list, a tuple or a dict that the template wrote, and count it."""
        METER.get().charge(value)
        return value

    @pass_eval_context
    def join_text(self, state: nodes.EvalContext, *parts: Any) -> str:
        """Return the parts of `a ~ b` as one text."""
        METER.get().check(sum(map(METER.get().size, parts)))
        text = markup_join(parts) if state.autoescape else str_join(parts)
        METER.get().charge(text)
        return text

    def concat(self, parts: Iterable[str]) -> str:  # Jinja has a function here.
        """Return the text of a block, a macro or the whole template."""
        meter, texts, size = METER.get(), [], 0
        for part in parts:
            size += len(part)
            meter.check(size)
            texts.append(part)
        return "".join(texts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function or a method for a template. Arguments may have any name, so no parameter has a common one."""
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps `str.format`.
        value, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(value, str) and name == "join" and args:
            args = (_items(args[0], [value]), *args[1:])
        _check_growth(name, value, [*args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, (str, bytes, list, tuple, dict)) and __obj != __self.count:  # Which counts by itself.
            METER.get().charge(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Run an operator for a template, after an estimate of its result."""
        meter = METER.get()
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * max(right, 0))
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        elif operator == "*":
            value, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int):
                meter.check(meter.size(value) * max(times, 0))
        elif operator == "%":
            _check_growth("%", left, [right])
        result = super().call_binop(context, operator, left, right)
        meter.charge(result)
        return result

    def _charge_output(self, value: Any) -> Any:
        """Count a value that goes into the output."""
        if isinstance(value, (list, tuple, dict)):
            value = str(value)
        if isinstance(value, str):
            METER.get().charge(value)
        return value


def _check_bits(bits: int) -> None:
    if bits > BITS:
        raise TooMuchError(f"an integer has more than {BITS} bits")


def _raise_exception(message: Any) -> None:
    raise RefusalError(str(message))


def _to_json(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Write JSON as transformers does: keys in their order, no character escaped that JSON allows."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return ChatEnvironment()


def render(source: str, variables: Mapping[str, Any], limits: Limits) -> str:
    """Render a template.

    Args:
        source: the template's text.
        variables: what the template can see.
        limits: what it may take.

    Raises:
        RefusalError: the template calls `raise_exception`.
        Exception: whatever a template may cause: TemplateError, TypeError, ZeroDivisionError, RecursionError and more.
    """
    with metered(limits):
        return _compile(source).render(**variables)


@lru_cache(maxsize=8)
def _compile(source: str) -> Template:
    return _environment().from_string(source)
