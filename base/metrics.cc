#include "base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <sstream>

namespace fairlead::metrics {
namespace {

class CounterImpl final : public Counter {
 public:
  explicit CounterImpl(prometheus::Counter& c) : c(c) {}
  void inc(double by) override { c.Increment(by); }
  double value() const override { return c.Value(); }
  prometheus::Counter& c;
};
class GaugeImpl final : public Gauge {
 public:
  explicit GaugeImpl(prometheus::Gauge& g) : g(g) {}
  void set(double v) override { g.Set(v); }
  void add(double v) override { g.Increment(v); }
  double value() const override { return g.Value(); }
  prometheus::Gauge& g;
};
class HistogramImpl final : public Histogram {
 public:
  explicit HistogramImpl(prometheus::Histogram& h) : h(h) {}
  void observe(double v) override { h.Observe(v); }
  prometheus::Histogram& h;
};

using Key = std::pair<std::string, Labels>;

}  // namespace

struct Registry::Impl {
  std::mutex mutex;
  prometheus::Registry registry;
  std::map<std::string, prometheus::Family<prometheus::Counter>*> counter_families;
  std::map<std::string, prometheus::Family<prometheus::Gauge>*> gauge_families;
  std::map<Key, std::unique_ptr<CounterImpl>> counters;
  std::map<Key, std::unique_ptr<GaugeImpl>> gauges;
  std::map<Key, std::unique_ptr<HistogramImpl>> histograms;
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::counter(const std::string& name, const std::string& help, const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->counters[{name, labels}];
  if (!slot) {
    auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(impl_->registry);
    impl_->counter_families[name] = &family;
    slot = std::make_unique<CounterImpl>(family.Add(labels));
  }
  return *slot;
}

Gauge& Registry::gauge(const std::string& name, const std::string& help, const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->gauges[{name, labels}];
  if (!slot) {
    auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(impl_->registry);
    impl_->gauge_families[name] = &family;
    slot = std::make_unique<GaugeImpl>(family.Add(labels));
  }
  return *slot;
}

Histogram& Registry::histogram(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                               const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->histograms[{name, labels}];
  if (!slot) {
    auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(impl_->registry);
    slot = std::make_unique<HistogramImpl>(family.Add(labels, buckets));
  }
  return *slot;
}

void Registry::remove_gauge(const std::string& name, const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->gauges.find({name, labels});
  if (it == impl_->gauges.end()) return;
  impl_->gauge_families[name]->Remove(&it->second->g);
  impl_->gauges.erase(it);
}

void Registry::remove_counter(const std::string& name, const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->counters.find({name, labels});
  if (it == impl_->counters.end()) return;
  impl_->counter_families[name]->Remove(&it->second->c);
  impl_->counters.erase(it);
}

std::string Registry::text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, impl_->registry.Collect());
  return out.str();
}

std::vector<double> exponential_buckets(double start, double factor, std::size_t count) {
  std::vector<double> b;
  for (std::size_t i = 0; i < count; ++i, start *= factor) b.push_back(start);
  return b;
}

}  // namespace fairlead::metrics
