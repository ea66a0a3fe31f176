// DETOX in one pass: a vote in each redundancy group, coordinate-wise rules over what it elects.
//
// Block by block, the replicas of each group are compared and the rules run on those that agree, while the block is still
// in cache.  Replicas outside the majority of the whole rows are outside the majority of some block; those inside it agree
// in every block, so a block's majority holds the bits of the rows that the vote elects in the end.  Only when a group
// has no majority in the end are the values written wrong: then the caller is told so.
#pragma once
#include <atomic>

#include "drive.h"

namespace hb {

int equal_rows(const void *const *rows, ptrdiff_t n, ptrdiff_t bytes, ptrdiff_t *classes, int threads);

constexpr ptrdiff_t STEP = TILE;   // columns compared at a time: 16 KiB of each replica, in runs a prefetcher can follow
constexpr ptrdiff_t FETCH = BLOCK; // columns ahead

// One thread's room.
template <class T> struct Votes {
  const T **elected, **some;  // a row per group; those of one part
  T *values;                  // parts x STEP
  const T **value;            // parts
  double *weights;            // as many as groups, and at least as parts
  unsigned char *split;       // groups: whether some block's replicas differed
  Work<T> work;
};
template <class T> Votes<T> take_votes(Arena &arena, const HbStage *stages) {
  const ptrdiff_t groups = stages[0].groups, parts = stages[1].groups, most = std::max(groups, parts);
  Votes<T> v;
  v.elected = arena.take<const T *>(groups);
  v.some = arena.take<const T *>(groups);
  v.values = arena.take<T>(parts * STEP);
  v.value = arena.take<const T *>(parts);
  v.weights = arena.take<double>(most);
  v.split = arena.take<unsigned char>(groups);
  v.work = take_work<T>(arena, most);
  return v;
}

// The lowest of r replicas that a strict majority equals over [begin, end); null where there is none.  `enough` replicas
// are compared first: if they agree the others are not read.
template <class T>
const T *elect(const T *const *rows, const ptrdiff_t *member, ptrdiff_t r, ptrdiff_t enough, ptrdiff_t begin,
               ptrdiff_t end, unsigned char *split) {
  auto equal = [&](ptrdiff_t i, ptrdiff_t j) { return blocks<T>()->equal(rows[member[i]], rows[member[j]], begin, end, FETCH); };
  ptrdiff_t agree = 1;
  while (agree < enough && equal(0, agree)) agree++;
  if (agree == enough) return rows[member[0]];
  *split = 1;
  for (ptrdiff_t i = 0; i < r; i++) {
    ptrdiff_t count = 0;
    for (ptrdiff_t j = 0; j < r; j++) count += i == j || equal(i, j);
    if (2 * count > r) return rows[member[i]];
  }
  return nullptr;
}

// One rule over columns [begin, end) of k rows; false where it is a mean and some value is not finite.
template <class T>
bool apply_rule(const HbStage &stage, const T *const *rows, ptrdiff_t k, ptrdiff_t begin, ptrdiff_t end, T *out,
                const Votes<T> &v) {
  const Blocks<T> *kernels = blocks<T>();
  switch (stage.rule) {
    case HB_MEDIAN: kernels->median(rows, k, begin, end, out, v.work); return true;
    case HB_TRIMMED_MEAN: kernels->trimmed_mean(rows, k, begin, end, stage.f, out, v.work); return true;
    case HB_MEAN_AROUND_MEDIAN: kernels->mean_around_median(rows, k, begin, end, stage.f, out, v.work); return true;
    case HB_PHOCAS: kernels->phocas(rows, k, begin, end, stage.f, out, v.work); return true;
    case HB_SIGN_MAJORITY: kernels->sign_majority(rows, k, begin, end, out, v.work); return true;
  }
  for (ptrdiff_t i = 0; i < k; i++) {
    if (kernels->nonfinite_count(rows[i], begin, end)) return false;
    v.weights[i] = 1.0 / static_cast<double>(k);
  }
  if (k == 1)
    kernels->copy(rows[0], begin, end, out);
  else
    kernels->weighted_sum(rows, k, v.weights, begin, end, out, v.work);
  return true;
}

template <class T>
bool vote_block(const T *const *rows, const HbStage *stages, bool lazy, ptrdiff_t begin, ptrdiff_t end, T *out,
                const Votes<T> &v) {
  const HbStage &vote = stages[0], &inner = stages[1], &outer = stages[2];
  for (ptrdiff_t g = 0; g < vote.groups; g++) {
    const ptrdiff_t r = vote.start[g + 1] - vote.start[g];
    v.elected[g] = elect(rows, vote.member + vote.start[g], r, lazy ? r / 2 + 1 : r, begin, end, v.split + g);
    if (!v.elected[g] && out) return false;
  }
  if (!out) return true;
  const bool alone = inner.groups == 1 && outer.rule != HB_SIGN_MAJORITY;  // any other rule gives a single row back
  for (ptrdiff_t p = 0; p < inner.groups; p++) {
    const ptrdiff_t k = inner.start[p + 1] - inner.start[p];
    for (ptrdiff_t i = 0; i < k; i++) v.some[i] = v.elected[inner.member[inner.start[p] + i]];
    T *to = alone ? out : v.values + p * STEP - begin;
    if (!apply_rule(inner, v.some, k, begin, end, to, v)) return false;
    v.value[p] = to;
  }
  return alone || apply_rule(outer, v.value, inner.groups, begin, end, out, v);
}

template <class T>
int voted(const T *const *rows, ptrdiff_t n, ptrdiff_t d, const HbStage *stages, int lazy, T *out, ptrdiff_t *classes,
          int threads) {
  constexpr ptrdiff_t CHUNK = 8 * TILE;
  const ptrdiff_t chunks = (d + CHUNK - 1) / CHUNK, groups = stages[0].groups;
  threads = team(threads, chunks);
  Arena measure(nullptr);
  take_votes<T>(measure, stages);
  Memory memory(measure.used * threads), other(2 * n * sizeof(void *));
  if (!memory.start || !other.start) return HB_NO_MEMORY;
  auto votes = [&](int thread) {
    Arena arena(static_cast<char *>(memory.start) + measure.used * thread);
    return take_votes<T>(arena, stages);
  };
  std::atomic<bool> failed(false);
  auto run = [&](ptrdiff_t k, const Votes<T> &v) {
    for (ptrdiff_t c = k * CHUNK; c < std::min(d, (k + 1) * CHUNK) && !failed; c += STEP)
      if (!vote_block(rows, stages, lazy != 0, c, std::min({d, c + STEP, (k + 1) * CHUNK}), out, v)) failed = true;
  };
  if (threads == 1) {
    const Votes<T> v = votes(0);
    for (ptrdiff_t k = 0; k < chunks; k++) run(k, v);
  } else {
    for (int t = 0; t < threads; t++) votes(t);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (ptrdiff_t k = 0; k < chunks; k++) run(k, votes(omp_get_thread_num()));
  }
  if (failed) return HB_UNDECIDED;
  const void **row = static_cast<const void **>(other.start);
  ptrdiff_t *found = reinterpret_cast<ptrdiff_t *>(row + n);
  for (ptrdiff_t g = 0; g < groups; g++) {
    const ptrdiff_t *member = stages[0].member + stages[0].start[g], r = stages[0].start[g + 1] - stages[0].start[g];
    bool split = false;
    for (int t = 0; t < threads; t++) split = split || votes(t).split[g];
    if (!split) {
      for (ptrdiff_t i = 0; i < r; i++) classes[member[i]] = !lazy || i < r / 2 + 1 ? member[0] : -1;
      continue;
    }
    for (ptrdiff_t i = 0; i < r; i++) row[i] = rows[member[i]];
    const int status = equal_rows(row, r, d * static_cast<ptrdiff_t>(sizeof(T)), found, threads);
    if (status != HB_OK) return status;
    ptrdiff_t best = 0;
    for (ptrdiff_t i = 0; i < r; i++) {
      classes[member[i]] = member[found[i]];
      best = std::max<ptrdiff_t>(best, std::count(found, found + r, i));
    }
    if (out && 2 * best <= r) return HB_UNDECIDED;
  }
  return HB_OK;
}

}  // namespace hb
