"""Which engines a compile builds: their names, the types of their weights, and their widths."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from specc.backends import backend, typed
from specc.compiler.graphs import Graphs, graph_key
from specc.compiler.options import Options
from specc.compiler.plans import RecipePlan
from specc.recipes import DECODE, committing, prefill
from specc.recipes.defaults import WIDTHS
from specc.runtime.block import LOOP, Block, Parents
from specc.runtime.tree import Tree

MOST_NAMES = 1000  # of blocks that would have one name


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """An engine to build.

    Attributes:
        name: the engine's name; engines of one block by several backends have one name.
        backend: the name of the backend that builds it.
        block: the block, with weights of the type that the backend builds.
        needed: a recipe runs it. The other engines exist so that `specc tune` can measure and choose their widths.
        any_width: one file of the backend runs this block and all that differ from it in width alone.
    """

    name: str
    backend: str
    block: Block
    needed: bool
    any_width: bool = False


def name_blocks(plans: Sequence[RecipePlan], lanes: int = 1, heads: Collection[str] = ()) -> dict[Block, str]:
    """Name each block that a recipe runs, and those with lanes. Recipes with equal blocks share an engine.

    Args:
        plans: the recipes.
        lanes: sequences that one call of the blocks with lanes runs. They are chains of the target: one token for each
            sequence, and as many as the widest chain has that a recipe verifies. The block of one loop of a draft model
            has lanes too.
        heads: the trained heads, whose states all blocks of the target return that commit rows.
    """
    decode = committing(DECODE, heads)
    names = {committing(prefill(), heads): "prefill", decode: "decode"}

    def add(block: Block, name: str, recipe: str) -> None:
        if block not in names:
            others = (f"{name}-{recipe}", *(f"{name}-{recipe}-{number}" for number in range(2, MOST_NAMES)))
            names[block] = next(each for each in (name, *others) if each not in names.values())

    for plan in plans:
        recipe = plan.method.name
        for block in plan.blocks.verify:
            add(block, _verify_name(block, recipe), recipe)
        for role, block in plan.blocks.engines.items():
            add(block, f"{role}-{recipe}" if block.model == "target" else f"{block.model}-{role}", recipe)
    if lanes > 1:
        exact_chains = [block for block in names if block.is_chain and not block.quantized_group]
        widest = max(block.slots for block in exact_chains if block == decode or "verify" in names[block])
        names[replace(decode, lanes=lanes)] = "decode-lanes"
        names.setdefault(replace(decode, topology=Tree.chain(widest), lanes=lanes), "verify-lanes")
        loops = [block for block in names if LOOP in block.inputs and not block.last_row]
        for block in sorted(loops, key=lambda block: block.slots)[-1:]:
            names[replace(block, lanes=lanes)] = f"{block.model}-lanes"
    return names


def engine_requests(names: Mapping[Block, str], options: Options, heads: Collection[str] = ()) -> list[EngineRequest]:
    """Return a request for each block and backend: those that recipes run, then chains of more widths to tune.

    Args:
        names: the blocks that recipes run, and those with lanes.
        options: the user's options.
        heads: what `name_blocks` was called with.
    """
    all_names = dict(names)
    for slots in WIDTHS.curve:
        all_names.setdefault(committing(Block(Tree.chain(slots)), heads), _chain_name(slots))
    return [
        EngineRequest(
            name=name,
            backend=backend_name,
            block=typed(block, backend_name, options.backends, options.dtype, options.build),
            needed=block in names,
        )
        for block, name in all_names.items()
        for backend_name in dict.fromkeys(options.backends)
    ]


def settle_widths(requests: Iterable[EngineRequest], graphs: Graphs, options: Options) -> list[EngineRequest]:
    """Find out which requests can share a file, and drop the widths that are not worth a file of their own.

    A width that no recipe runs is kept if it shares a file, since it costs nothing there, or if the user wants to tune.
    """
    settled = []
    for request in requests:
        graph = graphs[graph_key(graphs, request.block)].graph
        any_width = backend(request.backend).one_file_for_all_widths(graph, request.block, options.build)
        if request.needed or options.tune or any_width:
            settled.append(replace(request, any_width=any_width))
    return settled


def without_width(block: Block) -> Block:
    """Return what blocks that differ in width alone have in common, as the narrowest of them."""
    return replace(block, topology=Tree.chain(1))


def _verify_name(block: Block, recipe: str) -> str:
    """Name a block that verifies the drafts of a recipe. Chains and trees of any shape may serve other recipes too."""
    if isinstance(block.topology, Parents):
        return f"verify-tree-{block.slots}"
    name = _chain_name(block.slots) if block.is_chain else f"verify-{recipe}"
    return f"{name}-{recipe}" if block.quantized_group else name


def _chain_name(slots: int) -> str:
    return f"verify-chain-{slots}"
