"""Train the two demo models on the Python source of the standard library.

    python examples/train_demo.py examples/pycode-10m                # the target: 12 layers
    python examples/train_demo.py examples/pycode-1m --size draft    # the assistant: 2 layers, same tokenizer

The target is trained the way LayerSkip trains (Elhoushi et al. 2024, arXiv:2404.16710): layers are dropped
at random, deeper layers more often, and each step adds the loss of one early exit, in turn, through the
model's own final norm and head. So a prefix of the layers, or a subset of them, is a draft worth having.
An exit's weight is constant here (0.4), not growing with depth as in the paper: drafts use the early ones.

The run resumes where it stopped (`checkpoint.pt` in the output directory, removed at the end). The learning
rate is constant and falls to zero over the last fifth, so `--steps` may be changed on the way.
The source read is that of the running interpreter: 3.11's gives the published models.
"""

from __future__ import annotations

import argparse
import json
import random
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Never trained on: validation, prompts and every measurement come from these files alone.
HELD_OUT = (
    "bisect.py", "calendar.py", "cmd.py", "configparser.py", "csv.py", "fractions.py", "getopt.py", "graphlib.py",
    "heapq.py", "html/parser.py", "http/cookies.py", "json/encoder.py", "mailbox.py", "queue.py", "sched.py",
    "shlex.py", "statistics.py", "string.py", "textwrap.py", "urllib/robotparser.py", "wave.py", "zipapp.py",
)  # fmt: skip
LEFT_OUT = {"encodings", "pydoc_data", "site-packages", "test", "tests", "idle_test", "__pycache__"}
END = "<|endoftext|>"
VOCABULARY = 4096
CONTEXT = 512
BATCH = 8
RATE = 2e-3
EXITS = (2, 3, 4, 6, 8)
EXIT_WEIGHT = 0.4
DROPOUT = 0.2  # of the last layer; LayerSkip's exponential profile below it

SIZES = {  # hidden, MLP, layers, heads, heads of keys and values
    "target": (256, 704, 12, 4, 2),
    "draft": (192, 512, 2, 3, 1),
}


def sources() -> tuple[list[str], list[str]]:
    """The standard library's files as text: (to train on, held out)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    train, heldout = [], []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not LEFT_OUT & set(name.parts):
            text = path.read_text(encoding="utf-8", errors="ignore")
            (heldout if name.as_posix() in HELD_OUT else train).append(text)
    return train, heldout


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: every string has tokens, and every token sequence decodes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, bos_token=END, model_max_length=CONTEXT)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    return torch.tensor([t for text in texts for t in (*tokenizer.encode(text), tokenizer.eos_token_id)])


def droppable(forward: Callable[..., Tensor], layer: torch.nn.Module, rate: float) -> Callable[..., Tensor]:
    """A layer's forward that, while training, returns its input with probability `rate`."""

    def run(hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden if layer.training and random.random() < rate else forward(hidden, *args, **kwargs)

    return run


def cross_entropy(model: LlamaForCausalLM, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model.lm_head(hidden).flatten(0, 1), targets.flatten())


def losses(model: LlamaForCausalLM, batch: Tensor, exits: tuple[int, ...]) -> list[Tensor]:
    """The loss of each exit, then that of the whole model. `batch` is [B, T+1] token ids."""
    out = model.model(batch[:, :-1], output_hidden_states=bool(exits), use_cache=False)
    hidden = [model.model.norm(out.hidden_states[k]) for k in exits]
    return [cross_entropy(model, h, batch[:, 1:]) for h in (*hidden, out.last_hidden_state)]


@torch.no_grad()
def validate(model: LlamaForCausalLM, tokens: Tensor, exits: tuple[int, ...]) -> list[float]:
    """Mean loss in nats a token over the held-out text: at each exit, then of the whole model."""
    model.eval()
    rows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    sums = torch.stack([torch.stack(losses(model, b, exits)) * len(b) for b in rows.split(BATCH)])
    model.train()
    return (sums.sum(0) / len(rows)).tolist()


def write_card(directory: Path, facts: dict[str, Any], size: str) -> None:
    """Write README.md beside the model: what it is, how it was trained, how good it is."""
    hidden, _, layers, *_ = SIZES[size]
    rows = [(k if k == "all" else f"exit after {k}", v) for k, v in facts["validation_loss"].items()]
    losses = "".join(f"| {name} | {value:.3f} |\n" for name, value in rows)
    layerskip = f"""
It was trained for early exit, as LayerSkip does it (Elhoushi et al. 2024, arXiv:2404.16710). Layers are left out at
random, deeper layers more often: with a probability of up to {DROPOUT}. Each step adds the loss of one early exit, in
turn, with the weight {EXIT_WEIGHT}.
"""
    (directory / "README.md").write_text(
        f"""# {directory.name}

A demo model of specc. It continues Python source. It shows how engines work; it does not write useful code.

- Architecture: Llama, {layers} layers, hidden size {hidden}
- Tokenizer: byte-level BPE of {VOCABULARY} tokens
- Weights: bf16, in `model.safetensors`
- Training text: {facts["corpus_tokens"]:,} tokens of CPython 3.11's standard library, without its tests and tables
- Training: {facts["steps"]} steps of {BATCH} x {CONTEXT} tokens, AdamW, from random weights
- Time: {facts["seconds"] / 60:.0f} minutes on 2 cores of a machine that did other work too
{layerskip if len(rows) > 1 else ""}
To train it again, run `python examples/train_demo.py`. Its docstring says how.

Loss on {len(HELD_OUT)} held-out files, in nats for each token. `training.json` names the files.

| layers | loss |
| --- | --- |
{losses}
Licence: the training text is under the PSF licence. These weights are under Apache-2.0, as specc is.
""",
        encoding="utf-8",
    )


def rate_at(step: int, steps: int) -> float:
    return RATE * min(1.0, (step + 1) / 100, (steps - step) / (steps * 0.2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="directory for the model, its tokenizer and training.json")
    parser.add_argument("--size", choices=SIZES, default="target")
    parser.add_argument("--steps", type=int, default=2400, help=f"steps of {BATCH} x {CONTEXT} tokens (default 2400)")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints (default 100)")
    parser.add_argument("--card", action="store_true", help="only write README.md anew, from training.json")
    args = parser.parse_args()
    if args.card:
        return write_card(args.output, json.loads((args.output / "training.json").read_text()), args.size)
    args.output.mkdir(parents=True, exist_ok=True)
    checkpoint = args.output / "checkpoint.pt"
    exits = EXITS if args.size == "target" else ()

    random.seed(0)
    torch.manual_seed(0)
    texts, held_texts = sources()
    tokenizer = make_tokenizer(texts)
    train, heldout = encode(tokenizer, texts), encode(tokenizer, held_texts)
    print(f"{len(texts)} files, {len(train):,} tokens to train on; {len(held_texts)} files, {len(heldout):,} held out")

    hidden, mlp, layers, heads, kv_heads = SIZES[args.size]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2 * CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).train()
    last = config.num_hidden_layers - 1
    if exits:
        for i, layer in enumerate(model.model.layers):
            layer.forward = droppable(layer.forward, layer, DROPOUT * (2 ** (i / last) - 1))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)

    start, seconds = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start, seconds = saved["step"], saved["seconds"]
        print(f"resumed at step {start}")

    def by_exit(tokens: Tensor) -> dict[str, float]:
        return dict(zip((*map(str, exits), "all"), validate(model, tokens, exits), strict=True))

    def save(step: int, spent: float) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": spent}
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(checkpoint)

    loss = TextColumn("loss {task.fields[loss]:.3f}")
    columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), loss, TimeRemainingColumn())
    began, ema = time.monotonic(), 0.0
    with Progress(*columns) as progress:
        bar = progress.add_task("train", total=args.steps, completed=start, loss=0.0)
        for step in range(start, args.steps):
            random.seed(step)  # a resumed run sees the same layers dropped and the same text
            at = torch.randint(len(train) - CONTEXT - 1, (BATCH,), generator=torch.Generator().manual_seed(step))
            batch = torch.stack([train[i : i + CONTEXT + 1] for i in at.tolist()])
            one_exit = exits[step % len(exits) :][:1] if exits else ()
            *early, final = losses(model, batch, one_exit)
            (final + sum(EXIT_WEIGHT * e for e in early)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, args.steps)
            optimizer.step()
            optimizer.zero_grad()
            ema = final.item() if not ema else 0.95 * ema + 0.05 * final.item()
            progress.update(bar, advance=1, loss=ema)
            if (step + 1) % args.save_every == 0:
                save(step + 1, seconds + time.monotonic() - began)
                named = dict(
                    zip((*map(str, exits), "all"), validate(model, heldout[: 40 * CONTEXT], exits), strict=True)
                )
                progress.console.print(
                    f"step {step + 1}: held-out loss at each exit { ({k: round(v, 3) for k, v in named.items()}) }"
                )

    seconds += time.monotonic() - began
    held_out_loss = {k: round(v, 4) for k, v in by_exit(heldout).items()}
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16)
    model.config.dtype = "bfloat16"
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    facts = {
        "steps": args.steps,
        "tokens": args.steps * BATCH * CONTEXT,
        "corpus_tokens": len(train),
        "seconds": round(seconds),
        "validation_loss": held_out_loss,
        "held_out": HELD_OUT,
        "torch": torch.__version__,
    }
    (args.output / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_card(args.output, facts, args.size)
    checkpoint.unlink(missing_ok=True)
    print(json.dumps(facts["validation_loss"]))
    return None


if __name__ == "__main__":
    main()
