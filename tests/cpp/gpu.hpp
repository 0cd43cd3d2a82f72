// The GPU of the tests, or the stand-in driver's.
#pragma once
#include <memory>

#include "cuda/device.hpp"
#include "failure.hpp"
#include "testing.hpp"

/// Opened once; without a driver the test is skipped.
inline const std::shared_ptr<const atrous::core::cuda::Device>& device() {
    static const auto made = [] {
        try {
            return std::make_shared<const atrous::core::cuda::Device>(0);
        } catch (const atrous::core::Failure& failure) {
            throw testing::Skip{failure.what()};
        }
    }();
    return made;
}
