// What every manifest must be, whatever a runtime reads of it: JSON without tricks, with the digest and the fields of its schema.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace specc {

// Parses a manifest and checks its digest and the names of its fields. `path` is for errors. Throws Error, or an exception of JSON.
nlohmann::json ParseManifest(std::string content, const std::string& path);

}  // namespace specc
