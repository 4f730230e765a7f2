"""The options of a request, as types and as they are."""

from __future__ import annotations

import inspect
from typing import get_type_hints

from specc.runtime.request import RequestOptions
from specc.runtime.session import Session


def test_generate_takes_the_keyword_options_of_stream_with_their_types() -> None:
    parameters = inspect.signature(Session.stream).parameters.values()
    keywords = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    hints = get_type_hints(Session.stream)
    assert get_type_hints(RequestOptions) == {name: hints[name] for name in keywords}


def test_every_option_is_described() -> None:
    text = inspect.getdoc(Session.stream) or ""
    assert [name for name in RequestOptions.__annotations__ if f"    {name}: " not in text] == []
