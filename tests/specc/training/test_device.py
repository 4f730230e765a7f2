"""Where a training runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_head import SETTINGS, head, recordings

from specc.runtime.errors import HeadError
from specc.training.batches import collate
from specc.training.courses import COURSES
from specc.training.device import current_device, default_batch, device_named, generator, on_gpu

pytestmark = pytest.mark.torch
# Chimera reads digits of the tokens, and tensors of shapes alone have none.
ON_STATES = [
    name
    for name, course in COURSES.items()
    if course.in_model is None and course.architecture in SETTINGS and course.architecture != "chimera"
]


def test_the_processor_is_the_default_where_torch_finds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == device_named("cpu") == torch.device("cpu")
    assert not on_gpu()


def test_a_gpu_is_the_default_where_torch_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("auto") == torch.device("cuda")
    assert device_named("cuda:1") == torch.device("cuda:1")
    with pytest.raises(HeadError, match=r"no device 'cuda:2' .* has cpu, cuda, cuda:0, cuda:1"):
        device_named("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "gpu", "", "cuda:"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HeadError, match=rf"there is no device '{name}' to train on; torch .* has cpu"):
        device_named(name)


def test_a_gpu_takes_more_tokens_in_an_update() -> None:
    assert default_batch(torch.device("cuda")) > default_batch(torch.device("cpu"))


@pytest.mark.parametrize("recipe", ON_STATES)
def test_a_course_makes_all_of_its_tensors_on_the_device_in_use(recipe: str) -> None:
    """Tensors of shapes alone stand for those of a GPU. An operator of tensors on two devices fails with them, too."""
    course, place = COURSES[recipe], torch.device("meta")
    module, batch = head(course.architecture).to(place), collate(recordings(2, course.architecture))
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    values: dict[str, Any] = {
        name: value.to(place) for name, value in fields.items() if isinstance(value, torch.Tensor)
    }
    with place:
        assert current_device() == place
        for depth, features in enumerate(course.unroll(module, dataclasses.replace(batch, **values), course.steps)):
            assert features.device == place
            assert course.product(module, depth, features[0]).device == place


def test_random_numbers_are_those_of_their_seed() -> None:
    first, second = (torch.rand(4, generator=generator(7)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
