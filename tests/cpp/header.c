/* The header is C99, and a C program can use it. */
#include <stdio.h>
#include <string.h>

#include "atrous/atrous.h"

int main(void) {
    atrous_bundle* bundle = NULL;
    const atrous_options options = ATROUS_OPTIONS_INIT;
    const atrous_frame frame = ATROUS_FRAME_INIT;
    const atrous_bundle_info info = ATROUS_BUNDLE_INFO_INIT;
    const atrous_class entry = ATROUS_CLASS_INIT;
    const atrous_segmenter_info segmenter_info = ATROUS_SEGMENTER_INFO_INIT;
    const atrous_timings timings = ATROUS_TIMINGS_INIT;
    if (options.struct_size != sizeof options || options.crf_iterations != -1) return 1;
    if (frame.struct_size != sizeof frame || info.struct_size != sizeof info) return 2;
    if (entry.struct_size != sizeof entry || segmenter_info.struct_size != sizeof segmenter_info) return 3;
    if (timings.struct_size != sizeof timings || timings.total_ms != 0.0) return 4;
    if (atrous_abi_version() != ATROUS_ABI_VERSION || strcmp(atrous_last_error(), "") != 0) return 5;
    if (atrous_bundle_open("absent.atrous", &bundle) != ATROUS_ERROR_BUNDLE || bundle != NULL) return 6;
    printf("%s: %s\n", atrous_status_name(ATROUS_ERROR_BUNDLE), atrous_last_error());
    return strstr(atrous_last_error(), "not an atrous bundle") == NULL ? 7 : 0;
}
