// Open-addressing hash table from lattice points to vertex numbers.
#pragma once

#include <cstdint>
#include <limits>

#include "buffer.hpp"
#include "vertex_key.hpp"

namespace atrous {

template <int words>
class VertexTable {
  public:
    using Key = VertexKey<words>;
    static constexpr std::int32_t kMissing = -1;

    /// Forgets all points; keeps the memory.
    void clear() {
        used_ = 0;
        if (slots_.size() == 0) set_capacity_bits(12);
        for (Slot& slot : slots_) slot.vertex = kMissing;
    }

    /// The number of `key`; a new point gets `next`.
    std::int32_t find_or_insert(const Key& key, std::int32_t next) {
        Slot* slot = probe(key);
        if (slot->vertex == kMissing) {
            if (2 * (used_ + 1) > slots_.size()) {
                grow();
                slot = probe(key);
            }
            slot->key = key;
            slot->vertex = next;
            ++used_;
        }
        return slot->vertex;
    }

  private:
    struct Slot {
        Key key;
        std::int32_t vertex;
    };

    Slot* probe(const Key& key) {
        const std::size_t mask = slots_.size() - 1;
        std::size_t at = key.hash() >> shift_;
        while (slots_[at].vertex != kMissing && !(slots_[at].key == key)) at = (at + 1) & mask;
        return &slots_[at];
    }

    void set_capacity_bits(int bits) {
        shift_ = 64 - bits;
        slots_.resize(std::size_t{1} << bits);
    }

    void grow() {
        Buffer<Slot> old;
        old.swap(slots_);
        set_capacity_bits(64 - shift_ + 1);
        for (Slot& slot : slots_) slot.vertex = kMissing;
        for (const Slot& slot : old) {
            if (slot.vertex != kMissing) *probe(slot.key) = slot;
        }
    }

    Buffer<Slot> slots_;
    std::size_t used_ = 0;
    int shift_ = 64;
};

}  // namespace atrous
