/* The C interface of atrous: open a bundle, segment images. C99; atrous.hpp is the C++ face of it.
 *
 * Every function that can fail returns an atrous_status; atrous_last_error() says in words what happened in the calling
 * thread. No exception ever leaves the library. All functions may be called from any thread at any time, also on one
 * handle from several threads, and also after a failure.
 *
 * Handles are not pointers: a null, closed or invented one is refused with ATROUS_ERROR_HANDLE, and never reused.
 *
 * Structs begin with their size as the caller's compiler saw it, so that they can grow: what a caller does not know
 * takes its default, and what the library does not know must be zero. Start from the *_INIT macros.
 */
#ifndef ATROUS_ATROUS_H
#define ATROUS_ATROUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ATROUS_API __attribute__((visibility("default")))
#else
#define ATROUS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when a program must be compiled again; the library's soname carries it. */
#define ATROUS_ABI_VERSION 1

typedef int32_t atrous_status;
enum {
    ATROUS_OK = 0,
    ATROUS_PENDING = 1,           /* no error: the job has not ended within the time given */
    ATROUS_ERROR_ARGUMENT = 2,    /* a null pointer, an unknown option, a pitch or size that cannot be */
    ATROUS_ERROR_HANDLE = 3,      /* null, closed already, or of another kind */
    ATROUS_ERROR_BUNDLE = 4,      /* missing, damaged, of an unknown version, or unsafe to open */
    ATROUS_ERROR_ENGINE = 5,      /* no artifact fits, or the engine refused or failed */
    ATROUS_ERROR_SHAPE = 6,       /* a picture that the network cannot take */
    ATROUS_ERROR_CRF = 7,         /* unusable parameters, or a picture too large for the dense CRF */
    ATROUS_ERROR_DEVICE = 8,      /* a GPU is missing or failed, or memory or a stream belongs to another one */
    ATROUS_ERROR_UNAVAILABLE = 9, /* this build of the library lacks what was asked for */
    ATROUS_ERROR_MEMORY = 10,     /* not enough memory */
    ATROUS_ERROR_INTERNAL = 11    /* a bug in atrous; please report it with the text */
};

/* "ATROUS_ERROR_BUNDLE" for 4; "unknown status" for what is none. Never null. */
ATROUS_API const char* atrous_status_name(atrous_status status);

/* What the last failed call in this thread had to say, empty if there was none. Valid until the next call here. */
ATROUS_API const char* atrous_last_error(void);

/* ATROUS_ABI_VERSION of the library. */
ATROUS_API uint32_t atrous_abi_version(void);

/* "0.1.0". */
ATROUS_API const char* atrous_version(void);

/* The engines in this build, separated by spaces: "openvino", "tensorrt openvino", or "". */
ATROUS_API const char* atrous_engines(void);

/* ---- Bundles --------------------------------------------------------------------------------------------------- */

typedef struct atrous_bundle atrous_bundle;

/* Opens NAME.atrous and validates its manifest; every listed file must lie inside the bundle, exist, and have the
 * stated size. A bundle that is replaced meanwhile is opened again.
 * Contents are hashed before they are loaded, or by atrous_bundle_check. */
ATROUS_API atrous_status atrous_bundle_open(const char* path, atrous_bundle** bundle);

/* Hashes every artifact; ATROUS_ERROR_BUNDLE at the first that differs from the manifest. */
ATROUS_API atrous_status atrous_bundle_check(const atrous_bundle* bundle);

/* 0 if the bundle at the path was changed or replaced after this one was opened, else 1. */
ATROUS_API atrous_status atrous_bundle_is_current(const atrous_bundle* bundle, int32_t* is_current);

/* Segmenters that were opened from it live on. */
ATROUS_API atrous_status atrous_bundle_close(atrous_bundle* bundle);

/* Types of values. */
typedef enum atrous_dtype { ATROUS_UINT8 = 0, ATROUS_UINT16 = 1, ATROUS_FLOAT32 = 2 } atrous_dtype;

/* How images are fitted to the network's sizes. */
typedef enum atrous_resize {
    ATROUS_RESIZE_NONE = 0,     /* padded below and on the right, and tiled where larger than max */
    ATROUS_RESIZE_STRETCH = 1,  /* resized to opt */
    ATROUS_RESIZE_LETTERBOX = 2 /* resized to the largest size of their aspect ratio within opt, centred and padded */
} atrous_resize;

typedef struct atrous_bundle_info {
    uint32_t struct_size;
    int32_t class_count;
    int32_t ignore_index; /* the label that means "none"; -1 if the manifest has none */
    int32_t resize;       /* an atrous_resize */
    int32_t min_height, min_width, opt_height, opt_width, max_height, max_width;
    int32_t multiple, offset; /* sizes that the network takes are k * multiple + offset */
    int32_t stride;           /* pixels from one logit to the next */
    int32_t has_crf;          /* 1: the manifest has parameters for the dense CRF */
    const char* name;         /* texts are UTF-8, and valid until the bundle is closed */
    const char* created_by;
    const char* license; /* "" if the manifest has none */
    int32_t channels;    /* of images: 3 for RGB or BGR, else the number of bands */
    int32_t dtype;       /* of their values, an atrous_dtype */
    int32_t label_dtype; /* of labels: ATROUS_UINT8, or ATROUS_UINT16 of more than 256 classes */
    int32_t has_bands;   /* 1: frames are ATROUS_BANDS of `channels` and `dtype`; 0: ATROUS_RGB8 or ATROUS_BGR8 */
} atrous_bundle_info;
#define ATROUS_BUNDLE_INFO_INIT \
    {(uint32_t)sizeof(atrous_bundle_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, 0, 0}

ATROUS_API atrous_status atrous_bundle_get_info(const atrous_bundle* bundle, atrous_bundle_info* info);

typedef struct atrous_class {
    uint32_t struct_size;
    uint8_t color[4]; /* R, G, B, 0 */
    const char* name; /* UTF-8, valid until the bundle is closed */
} atrous_class;
#define ATROUS_CLASS_INIT {(uint32_t)sizeof(atrous_class), {0, 0, 0, 0}, NULL}

/* Class `index`, 0 to class_count - 1; its index is its value in the labels. */
ATROUS_API atrous_status atrous_bundle_get_class(const atrous_bundle* bundle, int32_t index, atrous_class* entry);

typedef struct atrous_band {
    uint32_t struct_size;
    uint32_t reserved;
    double low, high; /* the lowest and highest value that are meant to occur */
    const char* name; /* UTF-8, valid until the bundle is closed */
} atrous_band;
#define ATROUS_BAND_INIT {(uint32_t)sizeof(atrous_band), 0, 0.0, 0.0, NULL}

/* Band `index`, 0 to channels - 1, of a bundle that has bands. */
ATROUS_API atrous_status atrous_bundle_get_band(const atrous_bundle* bundle, int32_t index, atrous_band* band);

/* ---- Segmenters ------------------------------------------------------------------------------------------------ */

typedef struct atrous_segmenter atrous_segmenter;

typedef struct atrous_options {
    uint32_t struct_size;
    int32_t threads;       /* CPU threads of one call; 0: all cores */
    const char* backend;   /* "openvino", "tensorrt", or "auto" (also NULL) for the fastest that can run the bundle */
    const char* precision; /* "fp32", "fp16", "int8", "bf16" (the FP32 graph, on CPUs with it), or "auto" (also NULL) */
    int32_t crf; /* 1: refine with the dense CRF, with the bundle's parameters (DeepLab v2's if it has none) */
    int32_t crf_iterations;  /* mean-field updates; -1: as many as the bundle says, 10 where it says nothing */
    int32_t device;          /* which GPU, where one is used */
    const char* crf_storage; /* "fp32" (also NULL), or "unorm16": 16-bit fractions, which are half as much to move */
    float crf_class_floor;   /* 0 to 0.01: classes that are nowhere as likely take no part in the dense CRF on the CPU,
                              * and have 1e-5 in its result; on a GPU all take part */
} atrous_options;
#define ATROUS_OPTIONS_INIT {(uint32_t)sizeof(atrous_options), 0, NULL, NULL, 0, -1, 0, NULL, 0}

/* Loads the network; `options` may be NULL for the defaults. */
ATROUS_API atrous_status atrous_segmenter_open(const atrous_bundle* bundle, const atrous_options* options,
                                               atrous_segmenter** segmenter);

/* Calls that run in other threads end undisturbed. Jobs that have not begun end with ATROUS_ERROR_HANDLE; the one that
 * has is waited for. */
ATROUS_API atrous_status atrous_segmenter_close(atrous_segmenter* segmenter);

typedef struct atrous_segmenter_info {
    uint32_t struct_size;
    int32_t crf;         /* 1: results are refined */
    const char* backend; /* texts are valid until the segmenter is closed */
    const char* device;  /* where it computes: "CPU", or a GPU's name */
    const char* precision;
    const char* artifact; /* the bundle's file that it runs */
    const char* note;     /* why "auto" passed over a faster backend; mostly "" */
} atrous_segmenter_info;
#define ATROUS_SEGMENTER_INFO_INIT {(uint32_t)sizeof(atrous_segmenter_info), 0, NULL, NULL, NULL, NULL, NULL}

ATROUS_API atrous_status atrous_segmenter_get_info(const atrous_segmenter* segmenter, atrous_segmenter_info* info);

enum { ATROUS_RGB8 = 0, ATROUS_BGR8 = 1, ATROUS_BANDS = 2 };
enum { ATROUS_HOST = 0, ATROUS_DEVICE = 1 };

/* An image and where its results go. */
typedef struct atrous_frame {
    uint32_t struct_size;
    int32_t format;          /* ATROUS_RGB8 or ATROUS_BGR8, 3 bytes a pixel, or ATROUS_BANDS: what the bundle says */
    int32_t memory;          /* where pixels, labels and probabilities lie: ATROUS_HOST, or ATROUS_DEVICE (a GPU) */
    int32_t height, width;   /* 1 to 65536 */
    int32_t reserved;        /* 0 */
    const void* pixels;      /* [height, width, 3], or [height, width, channels] of `dtype` */
    int64_t pixel_row_bytes; /* from one row to the next; 0: packed */
    void* labels;            /* [height, width] of `label_dtype`, written */
    int64_t label_row_bytes; /* from one row to the next; 0: packed */
    float* probabilities;    /* [class_count, height, width], written; NULL: not computed */
    void* stream;            /* with ATROUS_DEVICE: the CUstream or cudaStream_t after whose work pixels are read */
    int32_t channels;        /* with ATROUS_BANDS: the bands of a pixel; else 0 or 3 */
    int32_t dtype;           /* with ATROUS_BANDS: the atrous_dtype of their values; else ATROUS_UINT8 */
    int32_t label_dtype;     /* ATROUS_UINT8, or ATROUS_UINT16 where the bundle has more than 256 classes */
    int32_t reserved2;       /* 0 */
} atrous_frame;
#define ATROUS_FRAME_INIT {(uint32_t)sizeof(atrous_frame), 0, 0, 0, 0, 0, NULL, 0, NULL, 0, NULL, NULL, 0, 0, 0, 0}

/* Milliseconds by stage; a stage that runs once a tile adds up. */
typedef struct atrous_timings {
    uint32_t struct_size;
    uint32_t reserved;
    double preprocess_ms, inference_ms, postprocess_ms, crf_ms, total_ms;
} atrous_timings;
#define ATROUS_TIMINGS_INIT {(uint32_t)sizeof(atrous_timings), 0, 0.0, 0.0, 0.0, 0.0, 0.0}

/* Segments one image; results are complete when it returns. `timings` may be NULL. */
ATROUS_API atrous_status atrous_run(atrous_segmenter* segmenter, const atrous_frame* frame, atrous_timings* timings);

/* ---- Jobs: run while the caller does something else ------------------------------------------------------------ */

typedef struct atrous_job atrous_job;

/* Queues what atrous_run does, for a thread of the segmenter that takes one frame after the other. The struct is
 * copied; the memory that it points to must stay until the job has ended. */
ATROUS_API atrous_status atrous_submit(atrous_segmenter* segmenter, const atrous_frame* frame, atrous_job** job);

/* Waits up to `timeout_ms` (negative: until the end) and returns what atrous_run would have, or ATROUS_PENDING. */
ATROUS_API atrous_status atrous_job_wait(atrous_job* job, int32_t timeout_ms, atrous_timings* timings);

/* Gives the handle back. A job that has begun is waited for; one that has not is dropped. */
ATROUS_API atrous_status atrous_job_close(atrous_job* job);

#ifdef __cplusplus
}
#endif

#endif
