// Drafters by a trained head, which reads the target's states beside the tokens.
#pragma once

#include <memory>

#include "drafters.h"

namespace specc {

// `eagle`: a chain (EAGLE, Li et al. 2024, arXiv:2401.15077).
std::unique_ptr<Drafter> MakeEagle(const Recipe& recipe, const Context& context);

// `eagle-tree`: the likeliest nodes of a tree (EAGLE-2, Li et al. 2024, arXiv:2406.16858).
std::unique_ptr<Drafter> MakeEagleTree(const Recipe& recipe, const Context& context);

// `eagle-lookup`: one tree for what the text says and what the head says.
std::unique_ptr<Drafter> MakeEagleLookup(const Recipe& recipe, const Context& context);

// `eagle-cascade`: a chain that copies the text where it can (Chen et al. 2024, arXiv:2312.11462).
std::unique_ptr<Drafter> MakeEagleCascade(const Recipe& recipe, const Context& context);

// `medusa`: a static tree by a head that guesses several tokens at once (Medusa, Cai et al. 2024, arXiv:2401.10774).
std::unique_ptr<Drafter> MakeMedusa(const Recipe& recipe, const Context& context);

}  // namespace specc
