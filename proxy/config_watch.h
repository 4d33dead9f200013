// ConfigWatch: notices that the --config file says something else than when we read it, so that the proxy can end and be started
// again with the new settings, as kube-proxy does. It looks every two seconds (a stat, and a read if that differs), because a
// file mounted from a ConfigMap changes by exchanging a folder behind symbolic links, which no file event tells reliably.
// A new configuration that is not valid is reported once and not acted on: the last good one stays in force.
// One strand.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/asio.h"

namespace fairlead::proxy {

class ConfigWatch {
 public:
  // `on_change` is called at most once, with words for people. An empty path watches nothing.
  ConfigWatch(net::any_io_executor executor, std::string path, std::function<void(const std::string&)> on_change,
              std::chrono::milliseconds interval = std::chrono::seconds(2));
  ~ConfigWatch();
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace fairlead::proxy
