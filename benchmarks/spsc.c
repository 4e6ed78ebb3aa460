/* The same ring protocol in C, as fast as its author could make it: marks, fence, records, marks with release, tail; a
   reader that copies, fences and looks again. Whole lines by vectors, both cursors remembered.
   usage: spsc COUNT BATCH CAPACITY; pins writer and reader to the first two cores; prints records per second. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define relax() __builtin_ia32_pause()
#else
#define relax() __asm__ volatile("yield")
#endif
#define load(p, order) __atomic_load_n(p, __ATOMIC_##order)
#define store(p, v, order) __atomic_store_n(p, v, __ATOMIC_##order)
#define CHUNK 64
#define SEED 0x1234567

typedef int64_t line_t __attribute__((vector_size(64), aligned(8), may_alias));

struct shared {
  _Alignas(64) int64_t tail;
  _Alignas(64) int64_t cursor;
  _Alignas(4096) int64_t slots[];
};

static void pin(int nth) {
  cpu_set_t have, want;
  CPU_ZERO(&want);
  sched_getaffinity(0, sizeof have, &have);
  for (int core = 0; core < CPU_SETSIZE; core++)
    if (CPU_ISSET(core, &have) && nth-- == 0) CPU_SET(core, &want);
  sched_setaffinity(0, sizeof want, &want);
}

static int read_all(struct shared *s, int64_t count, int64_t capacity) {
  int64_t mask = capacity - 1, seen = 0, total = 0;
  int64_t *out = aligned_alloc(64, 1024 * 64);
  memset(out, 0, 1024 * 64);
  while (seen < count) {
    int64_t ready = load(&s->tail, ACQUIRE) - seen;
    if (ready > 1024) ready = 1024;
    if (ready == 0) {
      relax();
      continue;
    }
    for (int64_t i = 0; i < ready; i++)
      *(line_t *)(out + i * 8) = *(volatile line_t *)(s->slots + ((seen + i) & mask) * 8);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (load(&s->slots[(seen & mask) * 8], RELAXED) != seen) return 3;
    for (int64_t i = 0; i < ready * 8; i++) total += out[i];
    seen += ready;
    store(&s->cursor, seen, RELEASE);
  }
  return total == 8 * (count * (count - 1) / 2) + count * (28 + 7 * (int64_t)SEED) ? 0 : 4;
}

static void write_all(struct shared *s, int64_t count, int64_t batch, int64_t capacity) {
  int64_t mask = capacity - 1, tail = 0, limit = 0;
  int64_t *in = aligned_alloc(64, batch * 64);
  while (tail < count) {
    while (limit < tail + batch)
      if ((limit = load(&s->cursor, ACQUIRE) + capacity) < tail + batch) relax();
    for (int64_t i = 0; i < batch; i++)
      for (int64_t w = 0; w < 8; w++) in[i * 8 + w] = tail + i + w + SEED;
    for (int64_t done = 0; done < batch; done += CHUNK) {
      int64_t chunk = batch - done < CHUNK ? batch - done : CHUNK;
      for (int64_t i = 0; i < chunk; i++) store(&s->slots[((tail + i) & mask) * 8], -1 - (tail + i), RELAXED);
      __atomic_thread_fence(__ATOMIC_RELEASE);
      for (int64_t i = 0; i < chunk; i++) {
        int64_t *slot = s->slots + ((tail + i) & mask) * 8;
        line_t record = *(line_t *)(in + (done + i) * 8);
        record[0] = -1 - (tail + i);
        *(volatile line_t *)slot = record;
        store(slot, tail + i, RELEASE);
      }
      tail += chunk;
      store(&s->tail, tail, RELEASE);
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int64_t count = atoll(argv[1]), batch = atoll(argv[2]), capacity = atoll(argv[3]);
  size_t size = sizeof(struct shared) + capacity * 64;
  struct shared *s = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (s == MAP_FAILED) return 1;
  s->slots[0] = -1;
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  pid_t child = fork();
  if (child == 0) {
    pin(1);
    _exit(read_all(s, count, capacity));
  }
  pin(0);
  write_all(s, count, batch, capacity);
  int status = 0;
  waitpid(child, &status, 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.0f\n", count / ((b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 5;
}
