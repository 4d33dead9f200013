// Counters, gauges and histograms in Prometheus's model, behind a header without heavy includes (prometheus-cpp is in
// metrics.cc). Each daemon has one Registry; families are made once at start, label values at use. All calls are thread
// safe; inc() and observe() are a lock-free add on a handle that the caller keeps.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace fairlead::metrics {

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void inc(double by = 1) = 0;
  virtual double value() const = 0;
};
class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void set(double v) = 0;
  virtual void add(double v) = 0;
  virtual double value() const = 0;
};
class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void observe(double v) = 0;
};

// Handles live as long as the registry. Asking twice for the same name and labels gives the same handle.
class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  Counter& counter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram& histogram(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                       const Labels& labels = {});
  void remove_gauge(const std::string& name, const Labels& labels);
  void remove_counter(const std::string& name, const Labels& labels);
  std::string text() const;  // exposition format 0.0.4

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Bucket bounds start, start*factor, ... (count of them).
std::vector<double> exponential_buckets(double start, double factor, std::size_t count);

}  // namespace fairlead::metrics
