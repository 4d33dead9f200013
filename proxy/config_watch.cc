#include "proxy/config_watch.h"

#include <sys/stat.h>

#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "proxy/config.h"

namespace fairlead::proxy {

struct ConfigWatch::State : std::enable_shared_from_this<State> {
  State(net::any_io_executor executor, std::string p, std::function<void(const std::string&)> f, std::chrono::milliseconds i)
      : timer(std::move(executor)), path(std::move(p)), on_change(std::move(f)), interval(i) {}

  // What tells versions of the file apart; all zeros when it is not there.
  struct Stamp {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t seconds = 0, nanoseconds = 0;
    bool operator==(const Stamp&) const = default;
  };
  Stamp stamp() const {
    struct stat s {};
    if (::stat(path.c_str(), &s) < 0) return {};
    return {s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec};
  }

  void wait() {
    timer.expires_after(interval);
    timer.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
      if (!ec && self->on_change && !self->changed()) self->wait();
    });
  }

  bool changed() {
    const auto now = stamp();
    if (now == seen || now == Stamp{}) return false;  // gone for a moment, while it is being replaced
    const auto next = read_file(path);
    if (!next) return false;
    seen = now;
    if (*next == text) return false;
    text = *next;
    Config c;
    std::vector<std::string> notes;
    c.config_file = path;
    if (auto valid = finish_config(c, notes); !valid) {
      log::error("the configuration was changed, but is not valid; the old one stays in force: {}", valid.error().message);
      return false;
    }
    const auto f = std::exchange(on_change, nullptr);
    f("the file was changed; leaving, to be started again with it");
    return true;
  }

  net::steady_timer timer;
  std::string path;
  std::function<void(const std::string&)> on_change;
  std::chrono::milliseconds interval;
  Stamp seen;
  std::string text;
};

ConfigWatch::ConfigWatch(net::any_io_executor executor, std::string path, std::function<void(const std::string&)> on_change,
                         std::chrono::milliseconds interval)
    : state_(std::make_shared<State>(std::move(executor), std::move(path), std::move(on_change), interval)) {
  if (state_->path.empty()) return;
  state_->seen = state_->stamp();
  if (auto text = read_file(state_->path)) state_->text = std::move(*text);
  state_->wait();
}

ConfigWatch::~ConfigWatch() { stop(); }

void ConfigWatch::stop() {
  state_->on_change = nullptr;
  state_->timer.cancel();
}

}  // namespace fairlead::proxy
