"""Templates are foreign code: none takes more time or memory than a limit, and each error is one line."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest
from thorough import sample

from specc.runtime import chat_sandbox
from specc.runtime.chat import ChatOptions, ChatTemplate
from specc.runtime.chat_meter import Limits, TooMuchError
from specc.runtime.errors import PromptError

LIMITS = Limits(seconds=0.2, characters=100_000, total=1_000_000)
VARIABLES: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "tools": None}
DOUBLING = "{% set ns = namespace(x=X) %}{% for i in range(200) %}{% set ns.x = BODY %}{% endfor %}{{ ns.x }}"

ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% if range(99999)|select('lt', 0)|first %}{% endif %}{% endfor %}",
    "{% macro f(n) %}{% for i in range(9) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endfor %}{% endmacro %}{{ f(30) }}",
    "{% for a in [1, 2, 3] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2, 3]) }}{% endif %}{% endfor %}",
]
GROWING = [
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [[0]] * 10000000 }}",
    "{{ 2 ** 1000000000 }}",
    "{{ (2 ** 9999) ** 9999 }}",
    "{{ 'x'|center(10**9) }}",
    "{{ 'x'|center(width=10**9) }}",
    "{{ 'x'.ljust(1000000000) }}",
    "{{ 'x'['ljust'](1000000000) }}",
    "{{ 'x'.zfill(1000000000) }}",
    "{{ '\t'.expandtabs(1000000000) }}",
    "{{ (1).to_bytes(100000000000, 'big') }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d'|format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ '{a:99999999}'.format_map({'a': 1}) }}",
    "{{ ('{0}' * 999).format('a' * 9999) }}",
    "{{ ('x' * 9999).replace('x', 'y' * 9999) }}",
    "{{ ('x' * 9999)|replace('x', 'y' * 9999) }}",
    "{{ ('x' * 9999)|replace('', 'y' * 9999) }}",
    "{{ ('x' * 9999).translate({120: 'y' * 9999}) }}",
    "{{ range(99999)|join('x' * 9999) }}",
    "{{ ('x' * 9999).join(['a'] * 999) }}",
    "{{ range(99999)|map('center', 9999)|list|length }}",
    "{{ range(99999)|batch(10**9, 'x')|list }}",
    "{{ ['a']|slice(10**9)|list }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ messages|tojson(indent='x' * 99999) }}",
    "{{ ('a\n' * 9999)|indent('x' * 9999) }}",
    "{{ ('a' * 9999)|wordwrap(1, true, 'b' * 9999) }}",
    "{{ 1|round(10**9, 'ceil') }}",
    "{{ lipsum(n=10**6) }}",
    "{{ ([range(999)|list] * 99)|sum(start=[]) }}",
    "{% set x %}{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}{% endset %}",
    "{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}",
    "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{{ f(f(f(f(f(f(f(f('a' * 9999)))))))) }}",
    "x" * 100_001,
    *(
        DOUBLING.replace("X", start).replace("BODY", body)
        for start, body in [
            ("'a'", "ns.x ~ ns.x"),
            ("'a'", "ns.x + ns.x"),
            ("'a'", "'{0}{0}'.format(ns.x)"),
            ("'a'", "'%s%s' % (ns.x, ns.x)"),
            ("'a'", "ns.x.replace('a', 'aa')"),
            ("'a'", "[ns.x, ns.x]|join"),
            ("[1]", "ns.x + ns.x"),
            ("[1]", "[ns.x, ns.x]"),
            ("(1,)", "(ns.x, ns.x)"),
            ("[1]", "{'a': ns.x, 'b': ns.x}"),
            ("[1]", "dict(a=ns.x, b=ns.x)"),
            ("3", "ns.x * ns.x"),
        ]
    ),
]
FAILING = [
    ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
    ("{{ 1 + 'a' }}", "TypeError: unsupported operand"),
    ("{{ messages[0].absent.field }}", "has no attribute 'absent'"),
    ("{{ messages|absent }}", "No filter named 'absent'"),
    ("{% for %}", "Expected an expression"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
    ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "SyntaxError: too many statically nested blocks"),
    ("{{ range(10**9) }}", "OverflowError"),
    ("{{ namespace(_a=1) }}", "begins with an underscore"),
    ("{{ strftime_now(1) }}", "TypeError"),
    ("{% include 'a' %}", "no loader"),
    ("{{ messages.__class__.__mro__ }}", "unsafe"),
    ("{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}", "unsafe"),
    ("{{ '{0.__class__.__mro__}'.format('') }}", "unsafe"),
    ("{{ ''['format_map']({}).__class__.__mro__ }}", "unsafe"),
    ("{{ messages.append(1) }}", "not safely callable|unsafe"),
    ("{{ raise_exception('two\nlines \x1b[31m') }}", r"refuses these messages: two lines \\x1b\[31m"),
    ("{{ raise_exception('a' * 9999) }}", "a…$"),
]


@pytest.mark.parametrize("template", sample(ENDLESS, 2))
def test_a_template_that_does_not_end_is_stopped(template: str) -> None:
    start = time.thread_time()
    with pytest.raises(TooMuchError, match=r"ran for more than 0\.2 s|values have more than"):
        chat_sandbox.render(template, VARIABLES, LIMITS)
    assert time.thread_time() - start < 1.5


@pytest.mark.parametrize("template", GROWING, ids=range(len(GROWING)))
def test_a_template_that_grows_is_stopped_before_it_takes_memory(template: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(TooMuchError):
        chat_sandbox.render(template, VARIABLES, LIMITS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert time.thread_time() - start < 1.5


@pytest.mark.parametrize(("template", "line"), FAILING, ids=range(len(FAILING)))
def test_whatever_a_template_raises_is_one_line(template: str, line: str) -> None:
    with pytest.raises(PromptError, match=line) as e:
        ChatTemplate({"default": template}, {}).render(VARIABLES["messages"], ChatOptions())
    message = str(e.value)
    assert message.startswith("the chat template ") and len(message) < 400 and message.isprintable()


def test_a_template_that_was_stopped_is_named_with_a_remedy() -> None:
    with pytest.raises(PromptError, match=r"the chat template was stopped: a value .*; pass the prompt as text"):
        ChatTemplate({"default": GROWING[0]}, {}).render(VARIABLES["messages"], ChatOptions())


def test_a_long_conversation_is_within_the_limits() -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": "word " * 100} for i in range(2000)]
    template = "{% for m in messages %}{{ '<' ~ m.role + '>' + m.content|trim }}{{ messages[1:]|length }}{% endfor %}"
    assert len(chat_sandbox.render(template, {"messages": messages}, Limits())) > 10**6


def test_each_rendering_has_its_own_limits() -> None:
    for _ in range(30):
        assert chat_sandbox.render("{{ 'a' * 99999 }}", {}, LIMITS) == "a" * 99999
