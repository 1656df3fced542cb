/* A libnvidia-ml.so.1 with two GPUs, for the real nvidia-ml-py: gcc -shared -fPIC -o DIR/libnvidia-ml.so.1 fake_nvml.c
   FAKE_NVML_COUNT=2, FAKE_NVML_INIT=9 (driver not loaded), FAKE_NVML_FAIL="util=3,power=15" (3: not supported, 15: the GPU
   is lost), FAKE_NVML_FILE: a file that holds the same as FAKE_NVML_FAIL and may change meanwhile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct { unsigned gpu, memory; } util_t;
typedef struct { unsigned long long total, free, used; } mem_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } proc_t;
static int started = 0;
static int number(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
static int in_text(const char *text, const char *what) {
    char key[64]; snprintf(key, sizeof key, "%s=", what);
    const char *found = text ? strstr(text, key) : 0; return found ? atoi(found + strlen(key)) : 0; }
static int fails(const char *what) {
    if (!started) return 1;
    const char *path = getenv("FAKE_NVML_FILE");
    if (path) { char text[256] = ""; FILE *f = fopen(path, "r");
        if (f) { size_t n = fread(text, 1, sizeof text - 1, f); text[n] = 0; fclose(f); int r = in_text(text, what); if (r) return r; } }
    return in_text(getenv("FAKE_NVML_FAIL"), what); }
#define INDEX ((unsigned)(size_t)h - 1)
int nvmlInitWithFlags(unsigned f) { int r = number("FAKE_NVML_INIT", 0); if (!r) started++; return r; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { if (!started) return 1; started--; return 0; }
const char *nvmlErrorString(int r) { static char b[64]; snprintf(b, 64, "fake error %d", r); return b; }
int nvmlSystemGetDriverVersion(char *b, unsigned n) { snprintf(b, n, "999.01"); return fails("driver"); }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 13020; return fails("cuda"); }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = number("FAKE_NVML_COUNT", 2); return fails("count"); }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) {
    if ((int)i >= number("FAKE_NVML_COUNT", 2)) return 2; *h = (void *)(size_t)(i + 1); return fails("handle"); }
int nvmlDeviceGetName(void *h, char *b, unsigned n) { snprintf(b, n, "Fake GPU %u", INDEX); return fails("name"); }
int nvmlDeviceGetUUID(void *h, char *b, unsigned n) { snprintf(b, n, "GPU-fake-%u", INDEX); return fails("uuid"); }
int nvmlDeviceGetUtilizationRates(void *h, util_t *u) { u->gpu = 10 + 30 * INDEX; u->memory = 5; return fails("util"); }
int nvmlDeviceGetMemoryInfo(void *h, mem_t *m) {
    m->total = 80ull << 30; m->used = (8ull + INDEX) << 30; m->free = m->total - m->used; return fails("mem"); }
int nvmlDeviceGetTemperature(void *h, int s, unsigned *t) { *t = 60 + INDEX; return fails("temp"); }
int nvmlDeviceGetPowerUsage(void *h, unsigned *p) { *p = 250000; return fails("power"); }
int nvmlDeviceGetEnforcedPowerLimit(void *h, unsigned *p) { *p = 700000; return fails("limit"); }
int nvmlDeviceGetClockInfo(void *h, int type, unsigned *c) { *c = type == 1 ? 1980 : 2619; return fails("clock"); }
int nvmlDeviceGetCurrentClocksEventReasons(void *h, unsigned long long *r) { *r = INDEX ? 0x24 : 0x1; return fails("reasons"); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *n, proc_t *p) {
    int r = fails("processes"); if (r) return r;
    if (INDEX) { *n = 0; return 0; }
    if (*n < 2) { *n = 2; return 7; }
    p[0].pid = (unsigned)getpid(); p[0].used = 3ull << 30; p[1].pid = 1; p[1].used = 5ull << 30; *n = 2; return 0; }
