/* LD_PRELOAD: every clock of the calendar of this process is SHIFT_S seconds off. What waits until a time of that clock
 * is told the kernel's time again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long shift(void) {
    static long seconds;
    static int known;
    if (!known) {
        const char *text = getenv("SHIFT_S");
        seconds = text ? atol(text) : 0;
        known = 1;
    }
    return seconds;
}

static int is_calendar(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

static struct timespec kernels(const struct timespec *until) {
    struct timespec real = *until;
    real.tv_sec -= shift();
    if (real.tv_sec < 0) real.tv_sec = 0;
    return real;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && is_calendar(clock)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) { return clock_gettime(CLOCK_REALTIME, now) ? 0 : base; }

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec real = kernels(until);
    return REAL(sem_timedwait)(semaphore, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    struct timespec real = kernels(until);
    return REAL(pthread_mutex_timedlock)(mutex, &real);
}

int pthread_cond_timedwait(pthread_cond_t *restrict changed, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    /* By the monotonic clock, if the condition was made so: such a time is near that clock's, and far from the other's. */
    struct timespec steady, real = *until;
    clock_gettime(CLOCK_MONOTONIC, &steady);
    if (until->tv_sec > steady.tv_sec + 400000000L) real = kernels(until);
    static __typeof__(&pthread_cond_timedwait) waits;
    if (!waits) waits = (__typeof__(waits))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!waits) waits = REAL(pthread_cond_timedwait);
    return waits(changed, mutex, &real);
}

long syscall(long number, ...) {
    long words[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) words[i] = va_arg(rest, long);
    va_end(rest);
    static __typeof__(&syscall) real;
    if (!real) real = REAL(syscall);
    struct timespec until;
    int waits_until = (words[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && (words[1] & FUTEX_CLOCK_REALTIME);
    if (number == SYS_futex && waits_until && words[3]) {
        until = kernels((const struct timespec *)words[3]);
        words[3] = (long)&until;
    }
    long result = real(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (number == SYS_clock_gettime && !result && is_calendar(words[0])) ((struct timespec *)words[1])->tv_sec += shift();
    return result;
}
