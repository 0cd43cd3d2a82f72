#include "openvino_qdq.hpp"

#include <memory>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/fake_quantize.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/subtract.hpp>
#include <optional>
#include <utility>
#include <vector>

namespace atrous::core {
namespace {

using ov::op::v0::Constant;
using ov::op::v0::Convert;
using ov::op::v0::FakeQuantize;
using ov::op::v1::Multiply;
using ov::op::v1::Reshape;
using ov::op::v1::Subtract;

/// Where the codes of a FakeQuantize are dequantized.
struct Dequantized {
    std::shared_ptr<Multiply> product;
    std::optional<float> zero_point;  ///< none where it is not a single constant
};

/// The nodes of one kind that read the first output.
template <typename Kind>
std::vector<std::shared_ptr<Kind>> users_of(const ov::Node& node) {
    std::vector<std::shared_ptr<Kind>> users;
    for (const ov::Input<ov::Node>& each : node.output(0).get_target_inputs()) {
        if (auto user = ov::as_type_ptr<Kind>(each.get_node()->shared_from_this())) users.push_back(std::move(user));
    }
    return users;
}

/// The one number of a constant, which may be converted or reshaped.
std::optional<float> single(const ov::Output<ov::Node>& value) {
    const ov::Node* node = value.get_node();
    while (ov::is_type<Convert>(node) || ov::is_type<Reshape>(node)) node = node->get_input_node_ptr(0);
    const auto* const constant = ov::as_type<const Constant>(node);
    if (constant == nullptr || ov::shape_size(constant->get_shape()) != 1) return std::nullopt;
    return constant->cast_vector<float>().front();
}

std::vector<Dequantized> dequantized(const FakeQuantize& node) {
    std::vector<Dequantized> found;
    for (const auto& codes : users_of<Convert>(node)) {
        for (const auto& wide : users_of<Convert>(*codes)) {
            for (const auto& product : users_of<Multiply>(*wide)) found.push_back({product, 0.0F});
            for (const auto& difference : users_of<Subtract>(*wide)) {
                const std::optional<float> zero_point = single(difference->input_value(1));
                for (const auto& product : users_of<Multiply>(*difference)) found.push_back({product, zero_point});
            }
        }
    }
    return found;
}

/// Quantizes from `low` to `high`, the values of the lowest and the highest code.
void replace(const FakeQuantize& node, Multiply& product, float low, float high) {
    const auto constant = [](float value) { return Constant::create(ov::element::f32, ov::Shape{}, {value}); };
    std::shared_ptr<ov::Node> fused =
        std::make_shared<FakeQuantize>(node.input_value(0), node.input_value(1), node.input_value(2), constant(low),
                                       constant(high), node.get_levels());
    const ov::element::Type& target = product.get_output_element_type(0);
    if (fused->get_output_element_type(0) != target) fused = std::make_shared<Convert>(fused, target);
    product.output(0).replace(fused->output(0));
}

}  // namespace

void fuse_qdq(ov::Model& model) {
    for (const std::shared_ptr<ov::Node>& each : model.get_ordered_ops()) {
        const auto node = ov::as_type_ptr<FakeQuantize>(each);
        if (node == nullptr) continue;
        const std::optional<float> low = single(node->input_value(3));
        const std::optional<float> high = single(node->input_value(4));
        if (!low || !high) continue;
        for (const auto& [product, zero_point] : dequantized(*node)) {
            const std::optional<float> scale = single(product->input_value(1));
            if (!scale || !zero_point) continue;
            replace(*node, *product, (*low - *zero_point) * *scale, (*high - *zero_point) * *scale);
        }
    }
}

}  // namespace atrous::core
