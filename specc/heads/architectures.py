"""The table of architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specc.heads.adaeagle import AdaEagle
from specc.heads.amphista import Amphista
from specc.heads.blockwise import Blockwise
from specc.heads.chimera import Chimera
from specc.heads.clover import Clover
from specc.heads.dflash import Dflash
from specc.heads.eagle import Eagle
from specc.heads.eagle3 import Eagle3
from specc.heads.falcon import Falcon
from specc.heads.fspad import Fspad
from specc.heads.glide import Glide
from specc.heads.guess_slots import HiddenTransfer, PromptTokens, SpeculativeStreams
from specc.heads.head import Head, HeadConfig
from specc.heads.hydra import Hydra
from specc.heads.jakiro import Jakiro
from specc.heads.judge import Judge
from specc.heads.kangaroo import Kangaroo
from specc.heads.m2r2 import M2R2
from specc.heads.medusa import Medusa
from specc.heads.mixture_of_attentions import MixtureOfAttentions
from specc.heads.peagle import Peagle
from specc.heads.recurrent_drafter import RecurrentDrafter
from specc.heads.s3d import S3D
from specc.heads.specdec_plus_plus import AcceptanceHead
from specc.heads.tandem import Tandem
from specc.runtime.errors import HeadError

ARCHITECTURES: Mapping[str, Callable[[HeadConfig], Head]] = {
    "eagle3": Eagle3,
    "medusa": Medusa,
    "blockwise": Blockwise,
    "eagle": Eagle,
    "mtp": Eagle,
    "peagle": Peagle,
    "dflash": Dflash,
    "adaeagle": AdaEagle,
    "fspad": Fspad,
    "falcon": Falcon,
    "jakiro": Jakiro,
    "hydra": Hydra,
    "hydra_plus_plus": Hydra,
    "recurrent_drafter": RecurrentDrafter,
    "clover": Clover,
    "clover_2": Clover,
    "amphista": Amphista,
    "chimera": Chimera,
    "ppd": PromptTokens,
    "judge": Judge,
    "hidden_transfer": HiddenTransfer,
    "lexical_units": PromptTokens,
    "s3d": S3D,
    "speculative_streaming": SpeculativeStreams,
    "tandem": Tandem,
    "m2r2": M2R2,
    "mixture_of_attentions": MixtureOfAttentions,
    "glide": Glide,
    "kangaroo": Kangaroo,
    "specdec_plus_plus": AcceptanceHead,
}


def build_head(config: HeadConfig) -> Head:
    """Build a head with random weights.

    Raises:
        HeadError: the architecture is unknown, or its settings are incomplete.
    """
    if config.architecture not in ARCHITECTURES:
        raise HeadError(f"unknown architecture {config.architecture!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[config.architecture](config)
