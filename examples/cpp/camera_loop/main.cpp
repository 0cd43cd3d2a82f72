// Frames from a folder as from a camera: camera_loop BUNDLE FOLDER [ROUNDS]
//
// While one frame is segmented, the next is read. Prints how long frames took from being read to being labelled.
#include <algorithm>
#include <atrous/atrous.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "png_file.hpp"

namespace {

using Clock = std::chrono::steady_clock;

/// Frames in work at once: one that is segmented and one that waits, so that the segmenter never does.
constexpr std::size_t kInFlight = 2;

struct Frame {
    Pixels pixels;  ///< stays here until the job has ended: a moved vector keeps its memory
    Clock::time_point read;
    atrous::Job job;
};

std::vector<std::string> find_frames(const std::string& folder) {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() == ".png") paths.push_back(entry.path().string());
    }
    if (paths.empty()) throw std::runtime_error(folder + " has no .png files");
    std::sort(paths.begin(), paths.end());
    return paths;
}

double percentile(const std::vector<double>& sorted, double share) {
    return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5)];
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3 && count != 4) {
        std::fprintf(stderr, "usage: %s BUNDLE FOLDER [ROUNDS]\n", arguments[0]);
        return 2;
    }
    try {
        const atrous::Segmenter segmenter(arguments[1]);
        const std::vector<std::string> paths = find_frames(arguments[2]);
        const int rounds = count == 4 ? std::max(1, std::atoi(arguments[3])) : 1;
        std::vector<double> latencies_ms;
        std::deque<Frame> in_flight;
        const auto finish_oldest = [&] {
            in_flight.front().job.get();
            const std::chrono::duration<double, std::milli> passed = Clock::now() - in_flight.front().read;
            latencies_ms.push_back(passed.count());
            in_flight.pop_front();
        };
        const auto start = Clock::now();
        for (int round = 0; round < rounds; ++round) {
            for (const std::string& path : paths) {
                Pixels pixels = read_png(path);
                const atrous::Image image{pixels.rgb.data(), pixels.height, pixels.width};
                const auto read = Clock::now();
                in_flight.push_back({std::move(pixels), read, segmenter.submit(image)});
                if (in_flight.size() == kInFlight) finish_oldest();
            }
        }
        while (!in_flight.empty()) finish_oldest();
        const std::chrono::duration<double> passed = Clock::now() - start;
        std::sort(latencies_ms.begin(), latencies_ms.end());
        std::printf("%zu frames, %.1f a second; latency ms: p50 %.1f, p90 %.1f, p99 %.1f, max %.1f\n",
                    latencies_ms.size(), static_cast<double>(latencies_ms.size()) / passed.count(),
                    percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.9), percentile(latencies_ms, 0.99),
                    latencies_ms.back());
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
