// A network as an ONNX file, written by hand: every 8th pixel is its own logits, the pixel engine's network.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace fixtures {

/// A message of the protobuf wire format.
class Message {
  public:
    Message& number(int field, std::uint64_t value) {
        varint(static_cast<std::uint64_t>(field) << 3);
        varint(value);
        return *this;
    }
    Message& bytes(int field, const std::string& value) {
        varint(static_cast<std::uint64_t>(field) << 3 | 2);
        varint(value.size());
        encoded_ += value;
        return *this;
    }
    Message& message(int field, const Message& value) { return bytes(field, value.encoded_); }
    const std::string& encoded() const { return encoded_; }

  private:
    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) encoded_ += static_cast<char>(value | 0x80);
        encoded_ += static_cast<char>(value);
    }

    std::string encoded_;
};

/// TypeProto and name of a float tensor [N, 3, H, W] of any size (onnx.proto: ValueInfoProto).
inline Message tensor_info(const std::string& name, const std::string& height, const std::string& width) {
    Message shape;
    shape.message(1, Message().bytes(2, "N")).message(1, Message().number(1, 3));
    shape.message(1, Message().bytes(2, height)).message(1, Message().bytes(2, width));
    const Message tensor = Message().number(1, 1).message(2, shape);
    return Message().bytes(1, name).message(2, Message().message(1, tensor));
}

/// A 1×1 convolution with stride 8 and the identity as its weight.
inline std::string make_onnx() {
    const float identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    std::string raw(sizeof identity, '\0');
    std::memcpy(raw.data(), identity, sizeof identity);
    Message weight;
    weight.number(1, 3).number(1, 3).number(1, 1).number(1, 1).number(2, 1).bytes(8, "weight").bytes(9, raw);
    const Message strides = Message().bytes(1, "strides").number(20, 7).number(8, 8).number(8, 8);
    Message node;
    node.bytes(1, "image").bytes(1, "weight").bytes(2, "logits").bytes(4, "Conv").message(5, strides);
    Message graph;
    graph.message(1, node).bytes(2, "pixels").message(5, weight);
    graph.message(11, tensor_info("image", "H", "W")).message(12, tensor_info("logits", "h", "w"));
    return Message().number(1, 8).message(7, graph).message(8, Message().number(2, 17)).encoded();
}

}  // namespace fixtures
