"""Heads and recorded text that are small enough to train in a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specc.heads import Head, HeadConfig, Target, build_head, digest
from specc.training.shards import Recording
from specc.training.teacher import Teacher

SIZE, VOCABULARY, LAYERS, KNOWN = 32, 40, 3, 24
LAYER: dict[str, float] = {"heads": 4, "key_heads": 2, "head_size": 8, "mlp_size": 48, "rope_theta": 1e4, "eps": 1e-6}
SETTINGS: dict[str, dict[str, float]] = {
    "eagle3": LAYER,
    "medusa": {"heads": 3, "eps": 1e-6},
    "blockwise": {"heads": 3, "hidden": 48, "eps": 1e-5},
    "hydra": {"depths": 3, "hidden": 32, "eps": 1e-5},
    "hydra_plus_plus": {**LAYER, "depths": 3, "hidden": 32, "layers": 1, "mlp_layers": 2},
    "recurrent_drafter": {"recurrent": 24, "hidden": 48, "eps": 1e-5},
    "clover": {**LAYER, "layers": 1, "parts": 4},
    "clover_2": {**LAYER, "layers": 2, "parts": 4, "cosine": 1, "hidden": 32},
    "chimera": {**LAYER, "heads": 8, "key_heads": 4},
    "amphista": {**LAYER, "guesses": 3, "parts": 4, "hidden": 48},
    "m2r2": {"rank": 8, "latent": 8, "eps": 1e-6, "heads": 4, "head_size": 8},
    "s3d": {"guesses": 3, "shared": 1, "first_skipped": 1, "skipped": 1, "mlp_size": 16, "eps": 1e-6},
}
SETTINGS |= {
    "eagle": SETTINGS["eagle3"] | {"final_norm": 0},
    "mtp": SETTINGS["eagle3"] | {"token_norm": 1, "state_norm": 1, "input_norm": 1},
    "peagle": SETTINGS["eagle3"],
    "dflash": SETTINGS["eagle3"] | {"layers": 2, "guesses": 3},
    "adaeagle": SETTINGS["eagle3"],
    "fspad": SETTINGS["eagle3"] | {"final_norm": 0},
    "falcon": SETTINGS["eagle3"] | {"final_norm": 0},
    "jakiro": SETTINGS["eagle3"] | {"final_norm": 0, "mlp_size": 0, "expert_size": 32},
    "tandem": SETTINGS["eagle3"],
    "mixture_of_attentions": SETTINGS["eagle3"],
    "glide": SETTINGS["eagle3"],
}
TAPS = {
    "eagle3": (0, 1, -1),
    "medusa": (-1,),
    "blockwise": (-1,),
    "eagle": (LAYERS,),
    "mtp": (LAYERS,),
    "peagle": (0, 1, -1),
    "dflash": (0, 1, -1),
    "adaeagle": (0, 1, -1),
    "fspad": (LAYERS,),
    "falcon": (LAYERS,),
    "jakiro": (LAYERS,),
    "tandem": (0, -1),
    "mixture_of_attentions": (0, 1, -1),
    "glide": (),
}
TAPS |= {"s3d": (), "m2r2": (0, 1)}
TAPS |= {name: (-1,) for name in SETTINGS if name not in TAPS}


def tables() -> Tensor:
    """Return an embedding table [V, d], the same at each call."""
    return torch.randn(VOCABULARY, SIZE, generator=torch.Generator().manual_seed(1))


def config(architecture: str, draft_vocab_size: int = KNOWN) -> HeadConfig:
    target = Target(name="toy", digest=digest(tables()), hidden_size=SIZE, vocab_size=VOCABULARY, layers=LAYERS)
    return HeadConfig(
        architecture=architecture,
        target=target,
        taps=TAPS[architecture],
        draft_vocab_size=draft_vocab_size,
        settings=SETTINGS[architecture],
    )


def head(architecture: str, draft_vocab_size: int = KNOWN) -> Head:
    """Return a head with random weights, those that start at zero included."""
    torch.manual_seed(0)
    module = build_head(config(architecture, draft_vocab_size))
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    module.attach(tables())
    return module.eval()


def teacher() -> Teacher:
    table = tables()
    return Teacher(target=config("eagle3").target, embedding=table, product=table, bias=None, config=None)


def recordings(count: int, architecture: str = "eagle3", length: int = 20, seed: int = 0) -> list[Recording]:
    """Return texts of a toy model: the next token is the last one plus one, and the states say so."""
    generator = torch.Generator().manual_seed(seed)
    table = tables()
    texts = []
    for number in range(count):
        start = int(torch.randint(KNOWN, (1,), generator=generator))
        tokens = (start + torch.arange(length + number % 3)) % KNOWN
        final = table[(tokens + 1) % KNOWN]
        noise = 0.05 * torch.randn(len(tokens), SIZE, generator=generator)
        states = torch.cat([table[tokens]] * (len(TAPS[architecture]) - 1) + [final + noise], 1)
        texts.append(Recording(tokens=tokens, stored_states=states.bfloat16(), stored_final=final.bfloat16(), prompt=4))
    return texts
