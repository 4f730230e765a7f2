"""The 58 published systems that specc is to hold, and the recipes that are theirs. No torch."""

from __future__ import annotations

from typing import NamedTuple


class System(NamedTuple):
    """A published system.

    Attributes:
        number: its number in the list.
        name: its name.
        paper: the numbers of its papers on arXiv.
        recipes: the recipes that are this system, or a part of it.
        missing: what of the paper these recipes do not have; empty if nothing is missing.
    """

    number: int
    name: str
    paper: str
    recipes: tuple[str, ...] = ()
    missing: str = ""

    @property
    def state(self) -> str:
        """Return how far specc has the system: `works`, `in part` or `not yet`."""
        if not self.recipes:
            return "not yet"
        return "in part" if self.missing else "works"


SYSTEMS = (
    System(1, "Speculative Decoding (Leviathan et al.)", "2211.17192", ("draft-model",)),
    System(2, "SpecDec (Xia et al.)", "2203.16487", ("specdec",),
           "the draft: a trained decoder that fills a block in one pass, behind an encoder; its rule works"),
    System(3, "Blockwise Parallel Decoding", "1811.03115", ("blockwise",)),
    System(4, "Aggressive Decoding, IAD and GAD", "2106.04970, 2205.10350", ("aggressive-decoding",),
           "GAD, whose draft is SpecDec's: it is trained, and needs an encoder; its rules are match and top_beta"),
    System(5, "Jacobi, GS-Jacobi and Hybrid (Santilli et al.)", "2305.10427",
           ("jacobi", "gauss-seidel-jacobi", "hybrid-jacobi")),
    System(6, "Lookahead Decoding", "2402.02057", ("lookahead",)),
    System(7, "FastCoT", "2311.08263", ("fastcot",)),
    System(8, "Speculative Jacobi Decoding", "2410.01699", ("speculative-jacobi",)),
    System(9, "BiLD (Big Little Decoder)", "2302.07863", ("bild",)),
    System(10, "Entropy Adaptive Decoding", "2502.06833", ("entropy-adaptive",)),
    System(11, "FS-GEN", "2406.12295", ("fs-gen", "fs-gen-contrastive", "fs-gen-proxy"),
           "the router that is trained"),
    System(12, "Speculative Contrastive Decoding", "2311.08981", ("contrastive",)),
    System(13, "Judge Decoding", "2501.19309", ("judge-decoding",)),
    System(14, "SpecTr", "2310.15141", ("spectr",)),
    System(15, "RSD (Recursive)", "2402.14160", ("rsd-c", "rsd-s")),
    System(16, "Sequoia", "2402.12374", ("sequoia",)),
    System(17, "DySpec", "2410.11744", ("dyspec", "dyspec-threshold", "dynamic-tree")),
    System(18, "Staged Speculative Decoding", "2308.04623", ("staged-tree", "staged")),
    System(19, "BASS", "2404.15778", ("draft-model",)),
    System(20, "Online Speculative Decoding", "2310.07177", ("draft-model",)),
    System(21, "DistillSpec", "2310.08461", ("draft-model",)),
    System(22, "Decoding Speculative Decoding", "2402.01528", ("draft-model",)),
    System(23, "SpecDec++", "2405.19715", ("specdec-plus-plus",)),
    System(24, "PEARL", "2408.11850", ("pearl",)),
    System(25, "EasySpec", "2502.02493", ("easyspec",)),
    System(26, "RASD", "2503.03434", ("rasd-eagle2", "rasd")),
    System(27, "RAPID", "2502.20330", ("rapid", "short-context")),
    System(28, "S2D", "2407.01955", ("s2d",)),
    System(29, "Kangaroo", "2404.18911", ("kangaroo",)),
    System(30, "SWIFT", "2410.06916", ("swift", "layer-skip")),
    System(31, "S3D", "2405.20314", ("s3d",)),
    System(32, "M2R2", "2502.02040", ("m2r2",)),
    System(33, "QuantSpec", "2502.10424", ("quantspec-int8", "quantspec", "quantized-self-draft")),
    System(34, "Relaxed Recursive Transformers", "2410.20672", ("relaxed-recursive", "recursive-depths")),
    System(35, "The Mamba in the Llama", "2408.15237"),
    System(36, "Clover", "2405.00263", ("clover",)),
    System(37, "Clover-2", "2408.00264", ("clover-2",)),
    System(38, "Hydra and Hydra++", "2402.05109", ("hydra", "hydra-plus-plus")),
    System(39, "Recurrent Drafter", "2403.09919", ("recurrent-drafter",)),
    System(40, "Amphista", "2406.13170", ("amphista",)),
    System(41, "Chimera", "2402.15758", ("chimera",)),
    System(42, "FSPAD", "2408.15562", ("fspad",)),
    System(43, "Falcon", "2412.12639", ("falcon",)),
    System(44, "Jakiro", "2502.06282", ("jakiro",)),
    System(45, "AdaEAGLE", "2412.18910", ("adaeagle",)),
    System(46, "Dynamic Depth Decoding", "2409.00142", ("dynamic-depth",)),
    System(47, "Mixture of Attentions", "2410.03804", ("mixture-of-attentions",)),
    System(48, "GliDe with CaPE", "2402.02082", ("cape", "glide", "glide-cape")),
    System(49, "Tandem Transformers", "2402.08644", ("tandem",)),
    System(50, "Hidden Transfer", "2404.12022", ("hidden-transfer",)),
    System(51, "Parallel Prompt Decoding", "2405.18628", ("ppd",)),
    System(52, "Speculative Streaming", "2402.11131", ("speculative-streaming",)),
    System(53, "Make Some Noise, TR-Jacobi", "2406.17404", ("tr-jacobi",)),
    System(54, "Lexical Unit Decoding", "2405.15208", ("lexical-units", "lexical-units-unverified")),
    System(55, "Token Recycling", "2408.08696", ("token-recycling",)),
    System(56, "ADED, or Adaptix", "2407.12021", ("adaptix",)),
    System(57, "CopySpec", "2502.08923", ("copyspec", "copyspec-draft")),
    System(58, "Superposed Decoding", "2405.18400", ("superposed",)),
)  # fmt: skip
# Recipes that are none of these systems: specc's own, and neighbours of the list.
OTHER_RECIPES = (
    "plain", "prompt-lookup", "recycled-lookup", "cascade", "early-exit", "layerskip", "draft-and-verify",
    "eagle3", "eagle3-tree", "eagle3-lookup", "eagle3-cascade", "medusa", "eagle", "eagle2", "mtp", "peagle",
    "dflash",
)  # fmt: skip
