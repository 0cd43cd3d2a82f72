// Open-addressing hash table from lattice points to vertex numbers.
#pragma once

#include <cstdint>
#include <limits>

#include "native/buffer.hpp"
#include "vertex_key.hpp"

namespace atrous {

template <int words>
class VertexTable {
  public:
    using Key = VertexKey<words>;
    static constexpr std::int32_t kMissing = -1;

    /// Makes room for `slots` slots or more, half of which may be taken before the table grows. Forgets all points.
    void reserve(std::size_t slots) {
        int bits = 12;
        while ((std::size_t{1} << bits) < slots) ++bits;
        set_capacity_bits(bits);
        used_ = 0;
    }

    /// Asks for the slot of `key` ahead of its use.
    void prefetch(const Key& key) const { __builtin_prefetch(&slots_[key.hash() >> shift_]); }

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
        for (Slot& slot : slots_) slot.vertex = kMissing;
    }

    void grow() {
        Buffer<Slot> old;
        old.swap(slots_);
        set_capacity_bits(64 - shift_ + 1);
        for (const Slot& slot : old) {
            if (slot.vertex != kMissing) *probe(slot.key) = slot;
        }
    }

    Buffer<Slot> slots_;
    std::size_t used_ = 0;
    int shift_ = 64;
};

}  // namespace atrous
