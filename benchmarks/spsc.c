/* The same ring protocol in C: intent, fence, records, tail with release; a reader that never loses.
   usage: spsc COUNT BATCH CAPACITY; pins writer to core 0 and reader to core 1; prints records per second. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
  _Alignas(64) int64_t tail;
  _Alignas(64) int64_t intent;
  _Alignas(64) int64_t cursor;
  _Alignas(64) int64_t slots[];
};

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static void copy_out(int64_t *restrict to, int64_t *restrict from) {
  for (int w = 0; w < 8; w++) to[w] = __atomic_load_n(&from[w], __ATOMIC_RELAXED);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int64_t count = atoll(argv[1]), batch = atoll(argv[2]), capacity = atoll(argv[3]), mask = capacity - 1;
  struct shared *s = mmap(0, sizeof *s + capacity * 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED) return 1;
  for (int64_t i = 0; i < capacity * 8; i++) s->slots[i] = 0;
  pid_t child = fork();
  if (child == 0) {
    pin(1);
    int64_t *out = aligned_alloc(64, 1024 * 64), total = 0, seen = 0;
    while (seen < count) {
      int64_t ready = __atomic_load_n(&s->tail, __ATOMIC_ACQUIRE) - seen;
      if (ready > 1024) ready = 1024;
      if (ready == 0) { __builtin_ia32_pause(); continue; }
      for (int64_t i = 0; i < ready; i++) copy_out(out + i * 8, s->slots + ((seen + i) & mask) * 8);
      __atomic_thread_fence(__ATOMIC_ACQUIRE);
      if (__atomic_load_n(&s->intent, __ATOMIC_RELAXED) > seen + capacity) _exit(3);
      for (int64_t i = 0; i < ready * 8; i++) total += out[i];
      seen += ready;
      __atomic_store_n(&s->cursor, seen, __ATOMIC_RELEASE);
    }
    _exit(total == 42 ? 4 : 0);
  }
  pin(0);
  int64_t *in = aligned_alloc(64, batch * 64), tail = 0;
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  while (tail < count) {
    while (__atomic_load_n(&s->cursor, __ATOMIC_ACQUIRE) + capacity < tail + batch) __builtin_ia32_pause();
    for (int64_t i = 0; i < batch; i++)
      for (int64_t w = 1; w < 8; w++) in[i * 8 + w] = tail + i + w;
    __atomic_store_n(&s->intent, tail + batch, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (int64_t i = 0; i < batch; i++) {
      int64_t *slot = s->slots + ((tail + i) & mask) * 8;
      __atomic_store_n(&slot[0], tail + i, __ATOMIC_RELAXED);
      for (int64_t w = 1; w < 8; w++) __atomic_store_n(&slot[w], in[i * 8 + w], __ATOMIC_RELAXED);
    }
    tail += batch;
    __atomic_store_n(&s->tail, tail, __ATOMIC_RELEASE);
  }
  int status = 0;
  waitpid(child, &status, 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  double seconds = (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9;
  printf("%.0f\n", count / seconds);
  return WEXITSTATUS(status);
}
