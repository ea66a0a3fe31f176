// Improves a comparator network by random changes that keep it right: fewer minima and maxima for the same ranks.
//
//     g++ -O3 -march=native -o search search.cpp && ./search SECONDS SEED SLACK < problem > network
//
// Problem and network are lists of whole numbers.  Problem: wires, locked comparators, comparators, targets, states; then
// comparators `a b` (the smaller value stays on a, the larger on b), targets `wire low high` (for an input with w ones the
// wire must be 0 where w <= low and 1 where w >= high), and states `weight mask`, the mask as words of 64 bits, lowest first.
// A state is a 0-1 input as the locked comparators have left it.  Where none are given they are all those that the locked
// comparators can leave: the product of what they leave in each connected component.  Network: cost, comparators,
// targets; then both lists.  Comparators whose results nothing reads are left out.
//
// Correctness is the 0-1 principle: the network is right for all inputs if it is for those of 0 and 1, of which only the
// weights at the targets' thresholds need a look.  512 of them are tried at a time.  Where there are more than are kept,
// changes are tried on a sample, and a cheaper network on all before it counts; where all are too many, prove.py decides.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <vector>

typedef uint64_t Lanes __attribute__((vector_size(64)));
constexpr int WORDS = 1, MOST = 64 * WORDS; // of a mask; more wires need more
constexpr size_t KEPT = 1 << 21; // states in memory
constexpr double TRIED = 2e8;    // states that a cheaper network is tried on; where there are more, on KEPT new random ones

struct Mask {
  uint64_t word[WORDS] = {};
  bool get(int i) const { return word[i / 64] >> (i % 64) & 1; }
  void flip(int i) { word[i / 64] ^= uint64_t(1) << (i % 64); }
  void set(int i) { word[i / 64] |= uint64_t(1) << (i % 64); }
  bool operator<(const Mask &o) const { return std::lexicographical_compare(word, word + WORDS, o.word, o.word + WORDS); }
};
struct State { int weight; Mask mask; };
struct Comparator { uint8_t a, b; };
struct Target { int wire, low, high; };
struct Network {
  std::vector<Comparator> at;
  std::vector<Target> targets;
};
struct Block { // 512 states of one weight, wire by wire
  int weight = 0;
  std::vector<Lanes> wire;
};

static int n, locked;
static std::vector<int> weights; // at some target's threshold
static bool decides[MOST + 2];   // whether a weight is one of them
static uint64_t seed;
static uint64_t next_random() {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed;
}
static int below(size_t k) { return int(next_random() % k); }

// Leaves out what no target reads; the number of minima and maxima that remain.
static int prune(Network &net) {
  bool wanted[MOST] = {};
  for (const Target &t : net.targets) wanted[t.wire] = true;
  int cost = 0;
  size_t to = net.at.size();
  for (size_t i = net.at.size(); i-- > 0;) {
    const Comparator c = net.at[i];
    const int read = wanted[c.a] + wanted[c.b];
    cost += read;
    if (read) wanted[c.a] = wanted[c.b] = true;
    if (read || i < size_t(locked)) net.at[--to] = c;
  }
  net.at.erase(net.at.begin(), net.at.begin() + to);
  return cost;
}

static int failing(const Network &net, const Block &block) { // a lane that comes out wrong, or -1
  Lanes s[MOST];
  memcpy(s, block.wire.data(), n * sizeof(Lanes));
  for (size_t i = locked; i < net.at.size(); i++) {
    const Comparator c = net.at[i];
    const Lanes x = s[c.a], y = s[c.b];
    s[c.a] = x & y;
    s[c.b] = x | y;
  }
  Lanes wrong = {};
  for (const Target &t : net.targets)
    if (block.weight >= t.high)
      wrong |= ~s[t.wire];
    else if (block.weight <= t.low)
      wrong |= s[t.wire];
  for (int k = 0; k < 8; k++)
    if (wrong[k]) return 64 * k + __builtin_ctzll(wrong[k]);
  return -1;
}

static void put(Block &block, int lane, const Mask &mask) {
  for (int i = 0; i < n; i++) {
    uint64_t *word = (uint64_t *)&block.wire[i] + lane / 64;
    const uint64_t bit = uint64_t(1) << (lane % 64);
    *word = mask.get(i) ? *word | bit : *word & ~bit;
  }
}
static Mask get(const Block &block, int lane) {
  Mask mask;
  for (int i = 0; i < n; i++)
    if (block.wire[i][lane / 64] >> (lane % 64) & 1) mask.set(i);
  return mask;
}
static Block made(int weight, const std::vector<Mask> &masks) { // lanes beyond the masks repeat them
  Block block;
  block.weight = weight;
  block.wire.assign(n, Lanes{});
  for (int lane = 0; lane < 512; lane++) put(block, lane, masks[lane % masks.size()]);
  return block;
}

struct Component { std::vector<State> states; std::map<int, std::vector<Mask>> of; };
static std::vector<Component> components;

static Mask joined(const Mask &x, const Mask &y) {
  Mask z;
  for (int k = 0; k < WORDS; k++) z.word[k] = x.word[k] | y.word[k];
  return z;
}
static void sort_out(std::vector<State> &states) {
  std::sort(states.begin(), states.end(), [](const State &x, const State &y) {
    return x.weight != y.weight ? x.weight < y.weight : x.mask < y.mask;
  });
  auto same = [](const State &x, const State &y) { return x.weight == y.weight && !memcmp(&x.mask, &y.mask, sizeof x.mask); };
  states.erase(std::unique(states.begin(), states.end(), same), states.end());
}
// What the locked comparators leave in each connected component. Two that a comparator joins can be in any two of their
// states; where the joined one has all wires, only the weights that decide are followed.
static void find_components(const std::vector<Comparator> &at) {
  std::vector<int> owner(n);
  std::vector<std::vector<State>> states(n);
  std::vector<int> size(n, 1);
  for (int i = 0; i < n; i++) {
    owner[i] = i;
    states[i] = {{0, Mask()}, {1, Mask()}};
    states[i][1].mask.set(i);
  }
  std::function<int(int)> find = [&](int i) { return owner[i] == i ? i : owner[i] = find(owner[i]); };
  for (int i = 0; i < locked; i++) {
    const int x = find(at[i].a), y = find(at[i].b);
    if (x != y) {
      sort_out(states[x]), sort_out(states[y]);
      owner[y] = x, size[x] += size[y];
      std::vector<State> both;
      for (const State &s : states[x])
        for (const State &t : states[y])
          if (size[x] < n || decides[s.weight + t.weight])
            both.push_back({s.weight + t.weight, joined(s.mask, t.mask)});
      states[x].swap(both);
      states[y].clear();
    }
    for (State &s : states[x])
      if (s.mask.get(at[i].a) && !s.mask.get(at[i].b)) s.mask.flip(at[i].a), s.mask.flip(at[i].b);
  }
  for (int i = 0; i < n; i++) {
    if (find(i) != i) continue;
    Component component;
    sort_out(states[i]);
    component.states = states[i];
    for (const State &s : component.states) component.of[s.weight].push_back(s.mask);
    components.push_back(component);
  }
  std::sort(components.begin(), components.end(), [](auto &x, auto &y) { return x.states.size() < y.states.size(); });
}
static bool each(size_t from, int left, const Mask &mask, const std::function<bool(const Mask &)> &body) {
  if (from + 1 == components.size()) {
    const auto found = components[from].of.find(left);
    if (found == components[from].of.end()) return true;
    for (const Mask &last : found->second)
      if (!body(joined(mask, last))) return false;
    return true;
  }
  for (const State &s : components[from].states)
    if (s.weight <= left && !each(from + 1, left - s.weight, joined(mask, s.mask), body)) return false;
  return true;
}
static double count_states() {
  double total = 0;
  std::vector<double> ways(n + 1, 0);
  ways[0] = 1;
  for (const Component &c : components) {
    std::vector<double> next(n + 1, 0);
    for (auto &[weight, masks] : c.of)
      for (int w = 0; w + weight <= n; w++) next[w + weight] += ways[w] * masks.size();
    ways = next;
  }
  for (int w : weights) total += ways[w];
  return total;
}

// all: every state in memory; kept: the few blocks that each change is tried on; hot: states at which changes went wrong
// before, a few blocks per weight.
static std::vector<Block> all, kept, hot;
static void remember(int weight, const Mask &mask) {
  std::vector<Block *> fit;
  for (Block &block : hot)
    if (block.weight == weight) fit.push_back(&block);
  put(*fit[below(fit.size())], below(512), mask);
}

static std::map<int, std::vector<Mask>> sample(size_t size) {
  std::map<int, std::vector<Mask>> states;
  for (size_t i = 0; i < size;) {
    Mask mask;
    int weight = 0;
    for (const Component &c : components) {
      const State &s = c.states[below(c.states.size())];
      weight += s.weight, mask = joined(mask, s.mask);
    }
    if (decides[weight]) states[weight].push_back(mask), i++;
  }
  return states;
}

// Tried on every state, or on as many new ones as time allows; a failing one is remembered.
static bool proved(const Network &net) {
  for (const Block &block : all) {
    const int lane = failing(net, block);
    if (lane >= 0) {
      remember(block.weight, get(block, lane));
      return false;
    }
  }
  if (components.empty() || count_states() <= KEPT) return true;
  if (count_states() > TRIED) {
    for (auto &[weight, masks] : sample(KEPT))
      for (size_t i = 0; i < masks.size(); i += 512) {
        const Block block = made(weight, {masks.begin() + i, masks.begin() + std::min(masks.size(), i + 512)});
        const int lane = failing(net, block);
        if (lane >= 0) {
          remember(weight, get(block, lane));
          return false;
        }
      }
    return true;
  }
  for (int weight : weights) {
    std::vector<Mask> some;
    bool right = true;
    auto flush = [&] {
      const Block block = made(weight, some);
      const int lane = failing(net, block);
      if (lane >= 0) remember(weight, get(block, lane)), right = false;
      some.clear();
      return right;
    };
    each(0, weight, Mask(), [&](const Mask &mask) {
      some.push_back(mask);
      return some.size() < 512 || flush();
    });
    if (right && !some.empty()) flush();
    if (!right) return false;
  }
  return true;
}

static bool passes(const Network &net) {
  for (const Block &block : hot)
    if (failing(net, block) >= 0) return false;
  for (size_t i = 0; i < kept.size(); i++) {
    const int lane = failing(net, kept[i]);
    if (lane < 0) continue;
    remember(kept[i].weight, get(kept[i], lane));
    if (i > 0) std::swap(kept[i], kept[below(i)]);
    return false;
  }
  return true;
}

static void exchange(Network &net, size_t from, int x, int y) { // wires x and y change places from there on
  auto other = [&](int w) { return w == x ? y : w == y ? x : w; };
  for (size_t i = from; i < net.at.size(); i++) net.at[i] = {uint8_t(other(net.at[i].a)), uint8_t(other(net.at[i].b))};
  for (Target &t : net.targets) t.wire = other(t.wire);
}
static void change(Network &net) {
  const size_t size = net.at.size() - locked;
  if (size < 2) return;
  const size_t i = locked + below(size), j = locked + below(size);
  Comparator &c = net.at[i], &other = net.at[j];
  switch (below(10)) {
    case 0: case 1: net.at.erase(net.at.begin() + i); break;
    case 2: { const Comparator old = c; net.at.erase(net.at.begin() + i); exchange(net, i, old.a, old.b); break; }
    case 3: case 4: {
      const Comparator moved = c;
      net.at.erase(net.at.begin() + i);
      net.at.insert(net.at.begin() + j, moved);
      break;
    }
    case 5: case 6: {
      const uint8_t wire = below(n);
      if (wire != c.a && wire != c.b) (below(2) ? c.a : c.b) = wire;
      break;
    }
    case 7: if (i != j && c.a != other.b && other.a != c.b) std::swap(c.b, other.b); break;
    case 8: { const int x = below(n), y = below(n); if (x != y) exchange(net, i, x, y); break; }
    default: {
      const uint8_t x = below(n), y = below(n);
      if (x != y) net.at.insert(net.at.begin() + i, Comparator{x, y});
    }
  }
}

static long read() {
  long value;
  if (scanf("%ld", &value) != 1) { fprintf(stderr, "the problem ends too early\n"); exit(1); }
  return value;
}
static double now() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int count, char **argument) {
  if (count != 4) { fprintf(stderr, "usage: search SECONDS SEED SLACK < problem\n"); return 2; }
  const double seconds = atof(argument[1]);
  seed = 0x9e3779b97f4a7c15 * (atol(argument[2]) + 1);
  const int slack = atoi(argument[3]);
  n = read(), locked = read();
  Network best;
  best.at.resize(read()), best.targets.resize(read());
  const size_t given = read();
  for (Comparator &c : best.at) c.a = read(), c.b = read();
  std::set<int> at;
  for (Target &t : best.targets) {
    t.wire = read(), t.low = read(), t.high = read();
    at.insert(t.low), at.insert(t.high);
  }
  weights.assign(at.begin(), at.end());
  for (int weight : weights) decides[weight] = true;
  std::map<int, std::vector<Mask>> states;
  double total = given;
  for (size_t i = 0; i < given; i++) {
    const int weight = read();
    Mask mask;
    for (int k = 0; k < (n + 63) / 64; k++)
      if (scanf("%lu", &mask.word[k]) != 1) return 1;
    states[weight].push_back(mask);
  }
  if (!given) {
    find_components(best.at);
    total = count_states();
    if (total <= KEPT) {
      for (int w : weights) each(0, w, Mask(), [&](const Mask &mask) { states[w].push_back(mask); return true; });
    } else {
      states = sample(KEPT);
    }
  }
  constexpr size_t FEW = 48; // blocks
  for (auto &[weight, masks] : states) {
    for (size_t i = masks.size(); i > 1; i--) std::swap(masks[i - 1], masks[below(i)]);
    for (size_t i = 0; i < masks.size(); i += 512)
      all.push_back(made(weight, {masks.begin() + i, masks.begin() + std::min(masks.size(), i + 512)}));
    for (int k = 0; k < 3; k++) {
      hot.push_back(made(weight, {masks[below(masks.size())]}));
    }
  }
  for (size_t i = all.size(); i > 1; i--) std::swap(all[i - 1], all[below(i)]);
  kept.assign(all.begin(), all.begin() + std::min(FEW, all.size()));
  const bool sampled = all.size() > FEW || total > KEPT;

  int cost = prune(best);
  if (!passes(best) || !proved(best)) { fprintf(stderr, "the network given is wrong\n"); return 1; }
  const int first = cost;
  Network current = best, sure = best; // sure: the last that was tried on all states
  int here = cost, sure_cost = cost;
  long tries = 0, accepted = 0;
  const double start = now();
  double improved = 0;
  while ((tries++ & 255) != 0 || now() - start < seconds) {
    Network net = current;
    for (int k = 1 + __builtin_ctzll(next_random() | 8); k > 0; k--) change(net);
    const int price = prune(net);
    if (price > here && (price > cost + slack || below(50))) continue;
    if (!passes(net)) continue;
    if (price < cost || ++accepted % 1000 == 0) {
      if (sampled && !proved(net)) {
        if (!passes(current)) current = sure, here = sure_cost;
        continue;
      }
      sure = net, sure_cost = price;
      if (price < cost) best = net, cost = price, improved = now() - start;
    }
    current = net, here = price;
  }
  fprintf(stderr, "n %d: %d -> %d, %.0f states%s, %.1f million tries, last improved after %.0f s\n", n, first, cost, total,
          sampled ? " (sampled)" : "", tries / 1e6, improved);
  printf("%d %zu %zu\n", cost, best.at.size(), best.targets.size());
  for (const Comparator &c : best.at) printf("%d %d\n", c.a, c.b);
  for (const Target &t : best.targets) printf("%d %d %d\n", t.wire, t.low, t.high);
}
