"""The options of a request, as types and as they are."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from specc.runtime.model import Model
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


@pytest.mark.parametrize("name", ["Model.generate", "Model.stream", "Model.submit", "Session.generate"])
def test_an_unknown_option_is_named_with_the_nearest_one(name: str, toy_model: Model) -> None:
    owner, _, method = name.partition(".")
    call: Any = getattr(toy_model if owner == "Model" else toy_model.session(), method)
    with pytest.raises(TypeError, match=rf"{name} has no option 'max_tokens'; did you mean 'max_new_tokens'\?"):
        call("a", max_tokens=3)
    with pytest.raises(TypeError, match=rf"{name} has no option 'xyz'; help\(specc\.Session\.stream\) describes them"):
        call("a", temperature=0.0, xyz=3)


def test_the_options_of_submit_alone_are_named_too(toy_model: Model) -> None:
    submit: Any = toy_model.submit
    with pytest.raises(TypeError, match=r"Model\.submit has no option 'dead_line'; did you mean 'deadline'\?"):
        submit("a", dead_line=3)
    generate: Any = toy_model.generate
    with pytest.raises(TypeError, match=r"Model\.generate has no option 'deadline'; help"):
        generate("a", deadline=3)
