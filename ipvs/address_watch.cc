#include "ipvs/address_watch.h"

#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/fd.h"
#include "base/log.h"
#include "netlink/address.h"
#include "netlink/link.h"
#include "netlink/socket.h"

namespace fairlead::ipvs {
namespace {

using netlink::MessageView;
using netlink::Socket;

class Watch final : public AddressWatch {
 public:
  Watch(Socket news, Socket questions, Fd stop, AddressBook book, std::function<void()> handler)
      : news_(std::move(news)), questions_(std::move(questions)), stop_(std::move(stop)), book_(std::move(book)), handler_(std::move(handler)) {}
  ~Watch() override {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
  }

  void start() { thread_ = std::thread([this] { run(); }); }

  // Everything that is there; true if some of it is new.
  Result<bool> list() {
    bool news = false;
    const auto learn = [&](const MessageView& m) -> Result<> {
      news = book_.learn(m) || news;
      return {};
    };
    FL_CHECK(questions_.dump(netlink::build_dump_links(), "list links", {}, learn));
    FL_CHECK(questions_.dump(netlink::build_dump_addresses(std::nullopt), "list addresses", {}, learn));
    return news;
  }

 private:
  void run() {
    while (true) {
      pollfd p[2] = {{news_.fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      if (::poll(p, 2, -1) < 0 && errno != EINTR) return;
      if (p[1].revents) return;
      const auto messages = news_.receive(std::chrono::milliseconds(0));
      bool news = !messages;  // some were lost
      if (messages)
        for (const auto& m : *messages) news = book_.learn(m) || news;
      if (!messages)
        if (const auto again = list(); !again) log::warn("ipvs: {}", again.error().message);
      if (news) handler_();
    }
  }

  Socket news_, questions_;
  Fd stop_;
  AddressBook book_;
  std::function<void()> handler_;
  std::thread thread_;
};

}  // namespace

bool AddressBook::learn(const MessageView& m) {
  switch (m.header.nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const auto link = netlink::parse_link(m);
      if (!link || link->name != link_) return false;
      if (m.header.nlmsg_type == RTM_NEWLINK) index_ = link->index;
      if (m.header.nlmsg_type != RTM_DELLINK) return false;
      index_.reset();
      return true;
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const auto a = netlink::parse_address(m);
      if (!a) return false;
      const auto& ip = a->ip.address;
      const bool gone = m.header.nlmsg_type == RTM_DELADDR;
      // The kernel does not say who deleted an IPv6 address; the next comparison finds it.
      if (index_ && a->link == *index_) return gone && ip.is_v4() && m.header.nlmsg_pid != own_port_;
      if (ip.is_loopback() || ip.is_link_local()) return false;
      // An address is announced again when its lifetime is renewed.
      return gone ? addresses_.erase({a->link, ip}) != 0 : addresses_.insert({a->link, ip}).second;
    }
    default: return false;
  }
}

Result<std::unique_ptr<AddressWatch>> AddressWatch::start(int netns_fd, std::string link, std::uint32_t own_port, std::function<void()> handler) {
  FL_TRY(auto news, Socket::open_in(netns_fd, NETLINK_ROUTE));
  for (const unsigned group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR}) FL_CHECK(news.subscribe(group));
  FL_TRY(auto questions, Socket::open_in(netns_fd, NETLINK_ROUTE));
  Fd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) return fail_errno(errno, "eventfd");
  auto watch = std::make_unique<Watch>(std::move(news), std::move(questions), std::move(stop), AddressBook(std::move(link), own_port), std::move(handler));
  FL_TRY([[maybe_unused]] const bool some, watch->list());
  watch->start();
  return std::unique_ptr<AddressWatch>(std::move(watch));
}

}  // namespace fairlead::ipvs
