#include "schema.hpp"

#include <array>
#include <cmath>
#include <regex>
#include <set>
#include <stdexcept>
#include <utility>

#include "failure.hpp"

namespace atrous::core {
namespace {

using nlohmann::json;
using Found = std::optional<Violation>;

const std::set<std::string> kKnown = {"$defs",
                                      "$ref",
                                      "$schema",
                                      "title",
                                      "description",
                                      "type",
                                      "enum",
                                      "const",
                                      "required",
                                      "items",
                                      "properties",
                                      "minimum",
                                      "maximum",
                                      "minItems",
                                      "maxItems",
                                      "pattern",
                                      "if",
                                      "then",
                                      "else",
                                      "exclusiveMinimum",
                                      "minLength",
                                      "minProperties",
                                      "additionalProperties",
                                      "exclusiveMaximum",
                                      "maxLength",
                                      "propertyNames"};

/// std::regex recurses for each character, so what it sees must be short; no pattern of a manifest is long.
constexpr std::size_t kMaxPatternText = 256;

/// Calls `visit` on every schema directly inside of `schema`.
template <typename Visit>
void for_each_inside(const json& schema, const Visit& visit) {
    for (const char* keyword : {"properties", "$defs"}) {
        if (!schema.contains(keyword)) continue;
        for (const json& inside : schema[keyword]) visit(inside);
    }
    for (const char* keyword : {"items", "additionalProperties", "propertyNames", "if", "then", "else"}) {
        if (schema.contains(keyword)) visit(schema[keyword]);
    }
}

void refuse_unknown_keywords(const json& schema) {
    if (schema.is_boolean()) return;
    for (const auto& [keyword, value] : schema.items()) {
        if (kKnown.count(keyword) == 0) throw std::invalid_argument("unknown JSON Schema keyword " + keyword);
    }
    for_each_inside(schema, refuse_unknown_keywords);
}

/// The value in a message, cut where it is long.
std::string shown(const json& value) {
    constexpr std::size_t kMaxShown = 80;
    std::string dumped = value.dump(-1, ' ', false, json::error_handler_t::replace);
    if (dumped.size() > kMaxShown) dumped = dumped.substr(0, kMaxShown) + "...";
    return dumped;
}

bool has_type(const json& value, const std::string& type) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "null") return value.is_null();
    if (type == "number") return value.is_number();
    return type == "integer" && is_integer(value);
}

class Validator {
  public:
    Validator(const json& root, const json& value, std::string place)
        : root_(root), value_(value), place_(std::move(place)) {}

    Found validate(const json& schema) const {
        if (schema.is_boolean()) {
            return schema.get<bool>() ? std::nullopt : violation("is not allowed here");
        }
        if (schema.contains("$ref")) {
            const auto target = schema["$ref"].get<std::string>();  // "#/$defs/size"
            if (Found found = validate(root_.at(json::json_pointer(target.substr(1))))) return found;
        }
        for (const auto check : {&Validator::check_value, &Validator::check_number, &Validator::check_text,
                                 &Validator::check_array, &Validator::check_object, &Validator::check_condition}) {
            if (Found found = (this->*check)(schema)) return found;
        }
        return std::nullopt;
    }

  private:
    Found violation(const std::string& what) const { return Violation{place_, what}; }

    Found inside(const json& value, const std::string& step, const json& schema) const {
        return Validator(root_, value, place_.empty() ? step : place_ + "/" + step).validate(schema);
    }

    Found check_value(const json& schema) const {
        if (schema.contains("type") && !has_type(value_, schema["type"].get<std::string>())) {
            return violation(shown(value_) + " is not of type " + schema["type"].get<std::string>());
        }
        if (schema.contains("const") && value_ != schema["const"]) {
            return violation(shown(value_) + " is not " + shown(schema["const"]));
        }
        if (!schema.contains("enum")) return std::nullopt;
        for (const json& allowed : schema["enum"]) {
            if (value_ == allowed) return std::nullopt;
        }
        return violation(shown(value_) + " is not one of " + shown(schema["enum"]));
    }

    Found check_number(const json& schema) const {
        if (!value_.is_number()) return std::nullopt;
        const double number = value_.get<double>();
        const auto limit = [&](const char* keyword, bool (*holds)(double, double), const char* how) -> Found {
            if (!schema.contains(keyword) || holds(number, schema[keyword].get<double>())) return std::nullopt;
            return violation(shown(value_) + " must be " + how + shown(schema[keyword]));
        };
        if (Found found = limit("minimum", [](double a, double b) { return a >= b; }, "at least ")) return found;
        if (Found found = limit("maximum", [](double a, double b) { return a <= b; }, "at most ")) return found;
        if (Found found = limit("exclusiveMaximum", [](double a, double b) { return a < b; }, "below ")) return found;
        return limit("exclusiveMinimum", [](double a, double b) { return a > b; }, "above ");
    }

    Found check_text(const json& schema) const {
        if (!value_.is_string()) return std::nullopt;
        const auto& characters = value_.get_ref<const std::string&>();
        if (schema.contains("minLength") && characters.size() < schema["minLength"].get<std::size_t>()) {
            return violation("is too short");
        }
        if (schema.contains("maxLength") && characters.size() > schema["maxLength"].get<std::size_t>()) {
            return violation("is too long");
        }
        if (!schema.contains("pattern")) return std::nullopt;
        const std::regex pattern(schema["pattern"].get<std::string>());
        if (characters.size() <= kMaxPatternText && std::regex_search(characters, pattern)) return std::nullopt;
        return violation(shown(value_) + " does not match " + shown(schema["pattern"]));
    }

    Found check_array(const json& schema) const {
        if (!value_.is_array()) return std::nullopt;
        if (schema.contains("minItems") && value_.size() < schema["minItems"].get<std::size_t>()) {
            return violation("has too few items: " + shown(value_));
        }
        if (schema.contains("maxItems") && value_.size() > schema["maxItems"].get<std::size_t>()) {
            return violation("has too many items: " + shown(value_));
        }
        if (!schema.contains("items")) return std::nullopt;
        for (std::size_t i = 0; i < value_.size(); ++i) {
            if (Found found = inside(value_[i], std::to_string(i), schema["items"])) return found;
        }
        return std::nullopt;
    }

    Found check_object(const json& schema) const {
        if (!value_.is_object()) return std::nullopt;
        if (schema.contains("required")) {
            for (const json& name : schema["required"]) {
                if (!value_.contains(name.get_ref<const std::string&>())) return violation(shown(name) + " is missing");
            }
        }
        if (schema.contains("minProperties") && value_.size() < schema["minProperties"].get<std::size_t>()) {
            return violation("has too few properties");
        }
        const json none = json::object();
        const json& properties = schema.contains("properties") ? schema["properties"] : none;
        for (const auto& [name, member] : value_.items()) {
            if (schema.contains("propertyNames")) {
                if (Found found = inside(json(name), name, schema["propertyNames"])) return found;
            }
            if (properties.contains(name)) {
                if (Found found = inside(member, name, properties[name])) return found;
            } else if (schema.contains("additionalProperties")) {
                const json& others = schema["additionalProperties"];
                if (others == false) return violation(shown(json(name)) + " is unknown here");
                if (Found found = inside(member, name, others)) return found;
            }
        }
        return std::nullopt;
    }

    Found check_condition(const json& schema) const {
        if (!schema.contains("if")) return std::nullopt;
        const char* const branch = validate(schema["if"]) ? "else" : "then";
        return schema.contains(branch) ? validate(schema[branch]) : std::nullopt;
    }

    const json& root_;
    const json& value_;
    std::string place_;
};

}  // namespace

bool is_integer(const json& value) {
    if (value.is_number_integer()) return true;
    if (!value.is_number_float()) return false;
    const double number = value.get<double>();
    return std::floor(number) == number;
}

Schema::Schema(json root) : root_(std::move(root)) {
    refuse_unknown_keywords(root_);
}

std::optional<Violation> Schema::check(const json& document) const {
    return Validator(root_, document, "").validate(root_);
}

}  // namespace atrous::core
