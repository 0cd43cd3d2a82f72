// Judges JSON by a JSON Schema: as much of the standard as manifest.schema.json uses, so that Python and C++ follow
// one text.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace atrous::core {

/// Where a document breaks its schema, and how.
struct Violation {
    std::string place;  ///< "input/size", or empty for the document itself
    std::string what;
};

class Schema {
  public:
    /// Throws std::invalid_argument where the schema uses a keyword that this class does not know.
    explicit Schema(nlohmann::json root);

    /// The first violation, if there is one.
    std::optional<Violation> check(const nlohmann::json& document) const;

  private:
    nlohmann::json root_;
};

/// Whether JSON Schema calls it an integer: 16 and 16.0 are.
bool is_integer(const nlohmann::json& value);

}  // namespace atrous::core
