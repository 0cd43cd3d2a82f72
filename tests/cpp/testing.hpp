// The least that tests need: cases that register themselves, and checks that say what they saw.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "atrous/atrous.h"

namespace testing {

struct Case {
    std::string name;
    std::function<void()> body;
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

struct Registration {
    Registration(std::string name, std::function<void()> body) {
        cases().push_back({std::move(name), std::move(body)});
    }
};

/// Thrown by a case that cannot run here.
struct Skip {
    std::string why;
};

/// What a program returns when all of its cases are skipped; CTest is told.
constexpr int kSkipped = 77;

[[noreturn]] inline void fail_check(const char* file, int line, const std::string& what) {
    throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename Actual, typename Expected>
void check_equal(const Actual& actual, const Expected& expected, const char* text, const char* file, int line) {
    if (actual == expected) return;
    std::ostringstream out;
    out << text << ": got " << actual << ", expected " << expected;
    if (std::strlen(atrous_last_error()) > 0) out << "; last error: " << atrous_last_error();
    fail_check(file, line, out.str());
}

/// Runs the cases whose name begins with the first argument; all without one.
inline int run(int count, char** arguments) {
    const std::string wanted = count > 1 ? arguments[1] : "";
    int ran = 0;
    int failed = 0;
    int skipped = 0;
    for (const Case& each : cases()) {
        if (each.name.compare(0, wanted.size(), wanted) != 0) continue;
        ++ran;
        try {
            each.body();
        } catch (const Skip& skip) {
            ++skipped;
            std::printf("%s skipped: %s\n", each.name.c_str(), skip.why.c_str());
        } catch (const std::exception& error) {
            ++failed;
            std::printf("%s failed: %s\n", each.name.c_str(), error.what());
        }
    }
    std::printf("%d cases, %d failed, %d skipped\n", ran, failed, skipped);
    if (ran > 0 && skipped == ran) return kSkipped;
    return ran == 0 || failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

}  // namespace testing

#define TEST(name)                                                       \
    static void name();                                                  \
    static const testing::Registration registration_##name(#name, name); \
    static void name()

#define CHECK(condition) \
    if (!(condition)) testing::fail_check(__FILE__, __LINE__, #condition)
#define CHECK_EQUAL(actual, expected) testing::check_equal((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK_OK(call) CHECK_EQUAL(call, ATROUS_OK)
