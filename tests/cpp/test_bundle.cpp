// Bundles: every way in which one can be wrong is a status and a text, never a crash.
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "bundle_schema.hpp"
#include "engine_fit.hpp"
#include "failure.hpp"
#include "fixtures.hpp"
#include "manifest.hpp"
#include "schema.hpp"
#include "sha256.hpp"
#include "testing.hpp"

namespace fs = std::filesystem;
using fixtures::Folder;
using nlohmann::json;

namespace {

/// Status of opening, after which nothing is open.
atrous_status try_open(const fs::path& path) {
    atrous_bundle* bundle = nullptr;
    const atrous_status status = atrous_bundle_open(path.c_str(), &bundle);
    CHECK((status == ATROUS_OK) == (bundle != nullptr));
    if (bundle != nullptr) CHECK_OK(atrous_bundle_close(bundle));
    return status;
}

void expect_refused(const fs::path& path, const std::string& words) {
    CHECK_EQUAL(try_open(path), ATROUS_ERROR_BUNDLE);
    if (std::string(atrous_last_error()).find(words) == std::string::npos) {
        throw std::runtime_error("expected '" + words + "' in: " + atrous_last_error());
    }
}

void expect_refused_manifest(const std::function<void(json&)>& change, const std::string& words) {
    const Folder folder;
    json manifest = fixtures::make_manifest("pixels");
    change(manifest);
    expect_refused(fixtures::write_bundle(folder, manifest, "pixels"), words);
}

std::string digest_of(const std::string& bytes, std::size_t step) {
    atrous::core::Sha256 digest;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
        digest.update(bytes.data() + at, std::min(step, bytes.size() - at));
    }
    return digest.hex();
}

}  // namespace

TEST(bundle_sha256_follows_the_standard) {
    // FIPS 180-4 examples.
    CHECK_EQUAL(digest_of("", 1), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_EQUAL(digest_of("abc", 1), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    CHECK_EQUAL(digest_of(two_blocks, 64), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    const std::string million(1000000, 'a');
    for (const std::size_t step : {std::size_t{63}, std::size_t{64}, std::size_t{1000}}) {
        CHECK_EQUAL(digest_of(million, step), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

TEST(bundle_schema_refuses_keywords_that_it_does_not_judge) {
    const atrous::core::Schema known(json::parse(atrous::core::kBundleSchema));
    bool is_refused = false;
    try {
        atrous::core::Schema(json{{"properties", {{"a", {{"uniqueItems", true}}}}}});
    } catch (const std::invalid_argument&) {
        is_refused = true;
    }
    CHECK(is_refused);
}

TEST(bundle_info_is_the_manifest) {
    const Folder folder;
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(fixtures::write_bundle(folder).c_str(), &bundle));
    atrous_bundle_info info = ATROUS_BUNDLE_INFO_INIT;
    CHECK_OK(atrous_bundle_get_info(bundle, &info));
    CHECK_EQUAL(std::string(info.name), "pixels");
    CHECK_EQUAL(std::string(info.license), "");
    CHECK_EQUAL(info.class_count, 3);
    CHECK_EQUAL(info.opt_height * 1000 + info.opt_width, 32048);
    CHECK_EQUAL(info.max_width, 64);
    CHECK_EQUAL(info.multiple, 8);
    CHECK_EQUAL(info.stride, 8);
    CHECK_EQUAL(info.ignore_index, 255);
    CHECK_EQUAL(info.has_crf, 1);
    atrous_class entry = ATROUS_CLASS_INIT;
    CHECK_OK(atrous_bundle_get_class(bundle, 1, &entry));
    CHECK_EQUAL(std::string(entry.name), "green");
    CHECK_EQUAL(int{entry.color[1]}, 255);
    CHECK_EQUAL(atrous_bundle_get_class(bundle, 3, &entry), ATROUS_ERROR_ARGUMENT);
    CHECK_EQUAL(atrous_bundle_get_class(bundle, -1, &entry), ATROUS_ERROR_ARGUMENT);
    CHECK_OK(atrous_bundle_check(bundle));
    CHECK_OK(atrous_bundle_close(bundle));
}

TEST(bundle_that_is_none) {
    const Folder folder;
    expect_refused(folder.path() / "absent.atrous", "not an atrous bundle");
    expect_refused(folder.path(), "not an atrous bundle");
    fs::create_directory(folder.path() / "manifest.json");
    expect_refused(folder.path(), "not an atrous bundle");
    CHECK_EQUAL(try_open(""), ATROUS_ERROR_BUNDLE);
}

TEST(bundle_manifest_that_is_no_json) {
    const std::string deep = std::string(100000, '[');
    for (const std::string& content :
         {std::string(), std::string("{"), std::string("[1]"), std::string("NaN"), deep, std::string("\xff\xfe")}) {
        const Folder folder;
        const fs::path path = fixtures::write_bundle(folder);
        fixtures::write_file(path / "manifest.json", content);
        expect_refused(path, "manifest.json");
    }
}

TEST(bundle_manifest_of_another_version) {
    expect_refused_manifest([](json& m) { m["schema_version"] = "2.0"; }, "Upgrade atrous");
    expect_refused_manifest([](json& m) { m["schema_version"] = 1; }, "no schema_version");
    expect_refused_manifest([](json& m) { m.erase("schema_version"); }, "no schema_version");
    expect_refused_manifest([](json& m) { m["schema_version"] = "1." + std::string(100000, '0'); }, "does not match");
}

TEST(bundle_manifest_that_breaks_the_schema) {
    expect_refused_manifest([](json& m) { m.erase("classes"); }, "\"classes\" is missing");
    expect_refused_manifest([](json& m) { m["extra"] = 1; }, "\"extra\" is unknown");
    expect_refused_manifest([](json& m) { m["classes"] = json::array(); }, "classes: has too few");
    expect_refused_manifest([](json& m) { m["classes"][1]["color"] = {1, 2, 256}; }, "classes/1/color/2");
    expect_refused_manifest([](json& m) { m["classes"][1]["id"] = 2; }, "class ids");
    expect_refused_manifest([](json& m) { m["input"]["std"][0] = 0; }, "input/std/0");
    expect_refused_manifest([](json& m) { m["input"]["scale"] = -1; }, "input/scale");
    expect_refused_manifest([](json& m) { m["input"]["size"]["min"] = {16, 65}; }, "min <= opt <= max");
    expect_refused_manifest([](json& m) { m["input"]["size"]["max"] = {64, 65537}; }, "input/size/max/1");
    expect_refused_manifest([](json& m) { m["input"]["size"]["multiple"] = 0; }, "input/size/multiple");
    expect_refused_manifest([](json& m) { m["input"]["size"]["multiple"] = 1e12; }, "input/size/multiple");
    expect_refused_manifest([](json& m) { m["input"]["size"]["opt"] = {32.5, 48}; }, "integer");
    expect_refused_manifest([](json& m) { m["input"]["resize"] = "crop"; }, "input/resize");
    expect_refused_manifest([](json& m) { m["output"]["stride"] = 0; }, "output/stride");
    expect_refused_manifest([](json& m) { m["output"]["head"] = "labels"; }, "output/head");
    expect_refused_manifest([](json& m) { m["artifacts"][0]["sha256"] = "abc"; }, "artifacts/0/sha256");
    expect_refused_manifest([](json& m) { m["artifacts"][0]["kind"] = "engine"; }, "\"engine\" is missing");
    expect_refused_manifest([](json& m) { m["artifacts"][0]["engine"] = json::object(); }, "artifacts/0/engine");
    expect_refused_manifest([](json& m) { m["crf"]["bilateral_weight"] = "4"; }, "crf/bilateral_weight");
    expect_refused_manifest([](json& m) { m["crf"]["iterations"] = 2.5; }, "crf/iterations");
    expect_refused_manifest([](json& m) { m["crf_fit"] = {{"metric", "miou"}}; }, "crf_fit");
}

TEST(bundle_integers_may_be_written_as_floats) {
    const Folder folder;
    json manifest = fixtures::make_manifest("pixels");
    manifest["input"]["size"]["opt"] = {32.0, 48.0};
    manifest["artifacts"][0]["bytes"] = 6.0;
    CHECK_OK(try_open(fixtures::write_bundle(folder, manifest, "pixels")));
}

TEST(bundle_paths_stay_inside) {
    const Folder folder;
    fixtures::write_file(folder.path() / "outside.onnx", "pixels");
    const std::string absolute = (folder.path() / "outside.onnx").string();
    const std::string zero("model.onnx\0.onnx", 16);
    for (const std::string& file :
         {std::string("../outside.onnx"), absolute, std::string("a/../../outside.onnx"), std::string("a\\b"), zero}) {
        expect_refused_manifest([&](json& m) { m["artifacts"][0]["file"] = file; }, "leads out of the bundle");
    }
    const fs::path path = fixtures::write_bundle(folder);
    fs::remove(path / "model.onnx");
    fs::create_symlink(folder.path() / "outside.onnx", path / "model.onnx");
    expect_refused(path, "leads out of the bundle");
    fs::remove(path / "model.onnx");
    fs::create_symlink(path / "model.onnx", path / "model.onnx");
    expect_refused(path, "unusable");
}

TEST(bundle_files_are_as_listed) {
    const Folder folder;
    const fs::path path = fixtures::write_bundle(folder);
    fixtures::write_file(path / "model.onnx", "pixel");
    expect_refused(path, "has 5 bytes; the manifest says 6");
    fs::remove(path / "model.onnx");
    expect_refused(path, "missing");
    fs::create_directory(path / "model.onnx");
    expect_refused(path, "missing");
}

TEST(bundle_content_is_hashed_before_it_is_loaded) {
    const Folder folder;
    const fs::path path = fixtures::write_bundle(folder);
    fixtures::write_file(path / "model.onnx", "PIXELS");
    atrous_bundle* bundle = nullptr;
    CHECK_OK(atrous_bundle_open(path.c_str(), &bundle));
    CHECK_EQUAL(atrous_bundle_check(bundle), ATROUS_ERROR_BUNDLE);
    atrous_segmenter* segmenter = nullptr;
    CHECK_EQUAL(atrous_segmenter_open(bundle, nullptr, &segmenter), ATROUS_ERROR_BUNDLE);
    CHECK(std::string(atrous_last_error()).find("nothing was loaded") != std::string::npos);
    CHECK(segmenter == nullptr);
    CHECK_OK(atrous_bundle_close(bundle));
}

TEST(bundle_engines_run_only_where_they_fit) {
    using atrous::core::EngineHost;
    using atrous::core::EngineIdentity;
    const EngineHost host{"tensorrt", "11.4.0.12", "8.9", "a GPU", 13};
    const auto why = [&](const EngineIdentity& identity) { return atrous::core::why_not(identity, host); };
    const EngineIdentity fitting{"tensorrt", "11.4.0.12", "8.9", "13", "none", false};
    const auto refuses = [&](void (*change)(EngineIdentity&), const std::string& words) {
        EngineIdentity identity = fitting;
        change(identity);
        CHECK(why(identity).find(words) != std::string::npos);
    };
    CHECK_EQUAL(why(fitting), "");
    refuses([](EngineIdentity& e) { e.flavor = "tensorrt-rtx"; }, "runs engines of tensorrt");
    refuses([](EngineIdentity& e) { e.version = "11.4.0.11"; }, "installed is 11.4.0.12");
    refuses([](EngineIdentity& e) { e.compute_capability = "9.0"; }, "a GPU has 8.9");
    refuses([](EngineIdentity& e) { e.cuda = "14"; }, "install a newer one");
    EngineIdentity portable{"tensorrt", "11.3.1.0", "8.0", "", "ampere+", true};
    CHECK_EQUAL(why(portable), "");
    portable.version = "10.16.0.0";
    CHECK(!why(portable).empty());
    portable.version = "11.5.0.0";
    CHECK(!why(portable).empty());
}

TEST(bundle_finds_the_most_precise_engine_that_fits) {
    const Folder folder;
    json manifest = fixtures::make_manifest("pixels");
    const auto add = [&](const char* precision, const char* file, const char* capability) {
        json engine = manifest["artifacts"][0];
        engine["kind"] = "engine";
        engine["precision"] = precision;
        engine["file"] = file;
        engine["engine"] = {{"flavor", "tensorrt"}, {"version", "11.4.0.12"}, {"compute_capability", capability}};
        manifest["artifacts"].push_back(engine);
        fixtures::write_file(folder.path() / "pixels.atrous" / file, "pixels");
    };
    fixtures::write_bundle(folder);
    add("int8", "int8.plan", "8.9");
    add("fp16", "fp16.plan", "8.9");
    add("fp32", "fp32.plan", "9.0");
    const atrous::core::Bundle bundle(fixtures::write_bundle(folder, manifest, "pixels").string());
    const atrous::core::EngineHost host{"tensorrt", "11.4.0.12", "8.9", "a GPU", 13};
    CHECK_EQUAL(atrous::core::find_engine(bundle, "auto", host).file, "fp16.plan");
    CHECK_EQUAL(atrous::core::find_engine(bundle, "int8", host).file, "int8.plan");
    try {
        atrous::core::find_engine(bundle, "fp32", host);
        CHECK(false);
    } catch (const atrous::core::Failure& failure) {
        CHECK_EQUAL(failure.status(), ATROUS_ERROR_ENGINE);
        CHECK(std::string(failure.what()).find("fp32.plan was built for compute capability 9.0") != std::string::npos);
    }
}

namespace {

std::string mutate(std::string manifest, std::mt19937& random) {
    const std::string pieces[] = {"null", "-1", "1e999", "\"\"", "[]", "{}", "65537", "0.5", "\\u0000", "\"", "}", "9"};
    for (unsigned edits = 1 + random() % 3; edits > 0; --edits) {
        const std::size_t at = random() % manifest.size();
        const std::size_t length = random() % 12;
        switch (random() % 4) {
            case 0:
                manifest[at] = static_cast<char>(random() % 256);
                break;
            case 1:
                manifest.erase(at, length);
                break;
            case 2:
                manifest.insert(at, pieces[random() % std::size(pieces)]);
                break;
            default:
                manifest.replace(at, length, pieces[random() % std::size(pieces)]);
        }
        if (manifest.empty()) manifest = "{";
    }
    return manifest;
}

bool is_accepted(const std::string& manifest) {
    try {
        atrous::core::parse_manifest(manifest);
        return true;
    } catch (const atrous::core::Failure& failure) {
        CHECK_EQUAL(failure.status(), ATROUS_ERROR_BUNDLE);
        return false;
    }
}

/// Whatever it answers, it must not break.
void use(const fs::path& path) {
    atrous_bundle* bundle = nullptr;
    if (atrous_bundle_open(path.c_str(), &bundle) != ATROUS_OK) return;
    atrous_options options = ATROUS_OPTIONS_INIT;
    options.backend = "pixels";
    atrous_segmenter* segmenter = nullptr;
    if (atrous_segmenter_open(bundle, &options, &segmenter) == ATROUS_OK) {
        fixtures::Picture picture(40, 70);
        const atrous_frame frame = picture.frame();
        atrous_run(segmenter, &frame, nullptr);
        CHECK_OK(atrous_segmenter_close(segmenter));
    }
    CHECK_OK(atrous_bundle_close(bundle));
}

}  // namespace

TEST(bundle_mutated_manifests_are_refused_or_harmless) {
    const Folder folder;
    const std::string original = fixtures::make_manifest("pixels").dump();
    const fs::path path = fixtures::write_bundle(folder);
    std::mt19937 random(2011);
    constexpr int kRounds = 10000;
    int accepted = 0;
    for (int round = 0; round < kRounds; ++round) {
        const std::string mutated = mutate(original, random);
        if (!is_accepted(mutated)) continue;
        ++accepted;
        if (accepted % 4 != 0) continue;
        fixtures::write_file(path / "manifest.json", mutated);
        use(path);
    }
    CHECK(accepted > kRounds / 50);  // mutations of names and colours are harmless: the test reaches both ends
    CHECK(accepted < kRounds / 2);
}
