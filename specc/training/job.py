"""Train a head: prompts, answers, states, updates, evaluation, card."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from specc import machine
from specc.heads import Head, load_head, save_head
from specc.huggingface import load_tokenizer
from specc.runtime.errors import HeadError
from specc.runtime.json_codec import to_json
from specc.training import processes
from specc.training.acceptance import shared_ranks, summary
from specc.training.beginning import begin_anew, begin_with, fingerprint, load_fitting
from specc.training.card import Card
from specc.training.checkpoint import Progress
from specc.training.costs import check_costs
from specc.training.course import Course
from specc.training.courses import course_of
from specc.training.device import gpu_name, load_here
from specc.training.distillation import Distillation
from specc.training.finite import check_weights
from specc.training.gain import predict
from specc.training.lanes import lanes_that_fit
from specc.training.places import Places
from specc.training.positions import within_positions
from specc.training.precision import fast_type
from specc.training.prompts import Prompt, read_prompts, text_prompts
from specc.training.record import RecordingOptions, batches, mixed, record
from specc.training.self_prompts import self_prompts
from specc.training.shards import Recording, keep_on_gpu, read_shard
from specc.training.teacher import Teacher, teacher_of
from specc.training.trainer import Sight, Trainer, TrainerOptions

DEPTHS = 6  # that the last evaluation measures
SHORT = 8  # tokens; a shorter recording teaches nothing
GIVEN, SELF_WRITTEN = "given", "self"  # sources of prompts: of files or with specc; of the model
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class DraftChoice:
    """The options that only the training of a draft model has.

    Attributes:
        source: a draft model to begin with; empty cuts one from the model.
        layers: of a draft that is cut.
        loops: of a recursive draft; None takes 3, or the next number that divides the model's layers.
        rank: of what each layer of a recursive draft adds to a shared matrix; None takes a 16th of the hidden size.
        divergence: the loss, a key of `specc.training.divergences.DIVERGENCES`.
        own_text: the share of the text that the draft writes itself.
        online: whether it learns from tokens alone that the draft model did not foresee, as it serves.
        answers: a file of answers of `specc generate` to the prompts of the data; None lets the model answer them.
    """

    source: str = ""
    layers: int = 2
    loops: int | None = None
    rank: int | None = None
    divergence: str = "forward-kl"
    own_text: float = 0.5
    online: bool = False
    answers: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `specc train`.

    Attributes:
        model: a hub id, a directory or a GGUF file.
        recipe: the recipe whose head or draft model is trained.
        output: the directory of the head, or of the draft model.
        data: files of prompts, or of text; none takes the prompts that ship with specc.
        work: where recordings and checkpoints go.
        recording: how text is made. Its taps are the course's.
        self_prompts: how many prompts the model writes itself, besides those of `data`.
        recording_minutes: the time after which no more answers are begun.
        trainer: the options of the loop.
        draft: what only the training of a draft model asks for.
        draft_vocab_size: tokens that the head knows.
        bits: 16 or 8 bits for each number of a matrix.
        head: a head to begin with; None begins in closed form.
        costs: the cost of a step by its slots, as a multiple of a decode; empty if unknown.
        costs_from: the bundle that has them.
        overwrite: whether a head that is there is replaced.
        command: the command line, for the card.
        stage: called with the title of a stage, the parts done and the parts in all.
    """

    model: str
    recipe: str
    output: Path
    data: tuple[Path, ...] = ()
    work: Path
    recording: RecordingOptions
    recording_minutes: float = inf
    self_prompts: int = 0
    trainer: TrainerOptions
    draft: DraftChoice = field(default_factory=DraftChoice)
    draft_vocab_size: int = 8192
    bits: int = 16
    head: Path | None = None
    costs: Mapping[int, float] = field(default_factory=dict)
    costs_from: Path | None = None
    overwrite: bool = False
    command: str = ""
    stage: Callable[[str, int, int], None] = lambda title, done, total: None

    @property
    def places(self) -> Places:
        """Where the training writes, and what it reads."""
        sources = {"MODEL": self.model, "--head": self.head, "--assistant-model": self.draft.source}
        files = {"--answers": self.draft.answers, **{f"--data {file}": file for file in self.data}}
        return Places.of(self.output, self.work, self.overwrite, sources | files)

    def begin(self) -> None:
        """Check the places, and take the work folder.

        Raises:
            HeadError: nothing may be written there.
        """
        self.places.check()
        self.take({"recipe": self.recipe, "seed": str(self.trainer.seed)})

    def take(self, owner: Mapping[str, str]) -> None:
        """Note in the work folder whose it is, see `Places.take`."""
        processes.once(lambda: self.places.take(owner))

    def write(self, save: Callable[[], None]) -> None:
        """Write the output, unless something has come to its place during the training. The first process does it.

        Raises:
            HeadError: something has.
        """
        if processes.is_first():
            self.places.check_again()
            save()


def train(options: Options) -> Card:
    """Train a head and write its directory. A run that was interrupted goes on where it stopped.

    Raises:
        HeadError: the recipe has no head, the output exists, or the loss is not a number.
        CaptureError: the model does not load.
        PromptError: a file of prompts is malformed.
    """
    course_of(options.recipe)
    options = within_positions(options)
    options.begin()
    processes.use_threads()
    with same_random_numbers(options.trainer.seed):
        options.stage("load the model", 0, 1)
        course, teacher, parameters, recordings, held_out = _recorded(options, course_of(options.recipe))
        recordings = keep_on_gpu(recordings)
        head, coverage = _begin(options, course, teacher, recordings)
        progress = _train(options, course, teacher, head, recordings, held_out)
        options.stage("measure the head", 0, 1)
        stored = _as_stored(head, options, teacher)
        check_weights(stored, "the head", "train again with a lower --learning-rate")
        ranked = {source: shared_ranks(stored, course, texts, _depths(course)) for source, texts in held_out.items()}
        acceptance = summary([text for texts in ranked.values() for text in texts])
        count = sum(map(len, recordings))
        card = Card(
            recipe=options.recipe,
            architecture=course.architecture,
            model=options.model,
            command=options.command,
            data=tuple(file.name for file in options.data),
            recorded_tokens=count,
            held_out_tokens=sum(len(text) for texts in held_out.values() for text in texts),
            coverage=round(coverage, 4),
            parameters=sum(parameter.numel() for parameter in head.parameters()),
            bits=options.bits,
            minutes=round(progress.seconds / 60, 2),
            updates=progress.updates,
            trained_tokens=progress.tokens,
            epochs=round(progress.tokens / count, 2),
            losses=tuple(progress.losses[max(progress.losses, key=int)]) if progress.losses else (),
            progress=progress.acceptances,
            progress_by_source=progress.by_source,
            acceptance=acceptance,
            by_source={source: summary(texts) for source, texts in ranked.items()},
            gain=predict(head, acceptance, options.costs, parameters),
            machine=machine.describe(gpu_name()),
            seed=options.trainer.seed,
            torch=torch.__version__,
            origin="" if options.head is None else options.head.resolve().name,
        )
    options.write(lambda: save_head(head, options.output, card.texts(options.output.name), options.bits))
    return card


@contextmanager
def same_random_numbers(seed: int) -> Iterator[None]:
    """Seed torch, and leave its random numbers as they were."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _recorded(
    options: Options, course: Course
) -> tuple[Course, Teacher, int, list[Recording], dict[str, list[Recording]]]:
    """Record what is not yet recorded. The model is freed at the end, unless heads of the course run in it.

    Returns:
        The course as heads can be trained by it, the model's tables, the number of its parameters, the text to train
        on, and the held-out text by its source.
    """
    model = load_here(options.model)
    check_costs(options.costs_from, model, options.model)
    options = within_positions(options, model)
    path = Path(options.model)
    teacher = teacher_of(model, path.resolve().name if path.exists() else options.model)
    options.take({"model": teacher.target.digest})
    if options.head is not None:
        load_fitting(options.head, course, teacher)  # A head that does not fit is refused before hours of recording.
    taps = course.taps(teacher.target.layers) or (-1,)  # Without taps nothing is kept, not even the last states.
    recording = dataclasses.replace(options.recording, taps=taps)
    tokenizer = load_tokenizer(options.model)
    ends = ends_of(model)
    prompts = read_prompts(
        options.data, tokenizer, count=recording.prompts, longest=recording.prompt_tokens, seed=recording.seed
    )
    model.to(fast_type())  # type: ignore[arg-type]  # transformers' types demand a device here
    conversations = any(prompt.later for prompt in prompts)
    columns = recording.answer_tokens + (recording.conversation_tokens if conversations else recording.prompt_tokens)
    recording = dataclasses.replace(recording, lanes=lanes_that_fit(model, columns, len(taps), recording.lanes))
    written = _self_prompts(options, model, tokenizer, ends, teacher.target.digest)
    todo = mixed(batches(prompts, recording), batches(written, recording, SELF_WRITTEN) if written else [])
    files = record(
        model,
        teacher.target.digest,
        todo,
        options.work,
        recording,
        ends,
        lambda done, tokens: options.stage(f"record states · {tokens * processes.count():,} tokens", done, len(todo)),
        options.recording_minutes,
    )
    recordings: list[Recording] = []
    held_out: dict[str, list[Recording]] = {}
    for batch, file in zip(todo, files, strict=True):
        if file is not None:
            texts = held_out.setdefault(batch.source or GIVEN, []) if batch.greedy else recordings
            texts += [text for text in read_shard(file) if len(text) >= SHORT]
    if not recordings or not all(held_out.values()):
        raise HeadError(f"the answers have fewer than {SHORT} tokens; give longer prompts, or more")
    for bind in filter(None, (course.in_model, course.from_model)):
        course = bind(course, model)
    return course, teacher, sum(p.numel() for p in model.parameters()), recordings, held_out


def _self_prompts(
    options: Options, model: PreTrainedModel, tokenizer: Any, ends: list[int], digest: str
) -> list[Prompt]:
    """Return the prompts that the model writes itself."""
    if not options.self_prompts:
        return []
    texts = self_prompts(
        model,
        tokenizer,
        count=options.self_prompts,
        seed=options.recording.seed,
        digest=digest,
        ends=ends,
        directory=options.work,
        advance=lambda count: options.stage("write prompts", count, options.self_prompts),
    )
    longest, seed = options.recording.prompt_tokens, options.recording.seed
    return text_prompts(texts, tokenizer, longest=longest, seed=seed)


def ends_of(model: PreTrainedModel) -> list[int]:
    """Return the tokens that end an answer."""
    config: Any = getattr(model, "generation_config", None) or model.config
    ends = config.eos_token_id
    return [] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [ends]


def _begin(options: Options, course: Course, teacher: Teacher, recordings: list[Recording]) -> tuple[Head, float]:
    """Return the head to train, and the share of the text that its vocabulary has."""
    if options.head is not None:
        options.stage("load the head", 0, 1)
        return begin_with(options.head, course, teacher, recordings)
    options.stage("start in closed form", 0, 1)
    return begin_anew(course, teacher, recordings, options.draft_vocab_size)


def _train(
    options: Options,
    course: Course,
    teacher: Teacher,
    head: Head,
    recordings: list[Recording],
    held_out: Mapping[str, list[Recording]],
) -> Progress:
    """Run the loop, with its progress shown."""
    loop = dataclasses.replace(options.trainer, kind=fast_type())
    config = to_json(head.config)
    del config["target"]["name"]  # A model that was moved is the same model.
    settings = {
        "config": config,
        "recording": [len(recordings), sum(map(len, recordings))],
        "head": None if options.head is None else fingerprint(options.head),
        "trainer": {"learning_rate": loop.learning_rate, "tokens": loop.tokens, "seed": loop.seed},
    }
    trainer = Trainer(head, course, Distillation(teacher, head.vocabulary), loop, options.work / CHECKPOINT, settings)

    def show(sight: Sight) -> None:
        rates = ", ".join(f"{rate:.0%}" for rate in sight.agreement)
        figures = f"loss {sight.loss:.2f}, right at each depth {rates}, {sight.speed:.0f} tokens/s"
        options.stage(f"train · {figures}, held-out {sight.chain:.2f} tokens a step", int(1000 * sight.part), 1000)

    return trainer.run(recordings, held_out, show)


def _depths(course: Course) -> int:
    """Return how deep the last evaluation looks: a recurrent head goes on, a stack of heads has an end."""
    return DEPTHS if course.recurrent else course.steps


def _as_stored(head: Head, options: Options, teacher: Teacher) -> Head:
    """Return the head as the stored numbers make it."""
    scratch = options.work / "stored"
    processes.once(lambda: save_head(head, scratch, {}, options.bits))
    stored = load_head(scratch)
    processes.wait()
    processes.once(lambda: shutil.rmtree(scratch))
    stored.attach(teacher.embedding, teacher.product)
    return stored
