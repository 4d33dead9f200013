// A server to play with: `apiserver_playground [folder]` starts one, prints its kubeconfig and waits for Ctrl-C.
#include <unistd.h>

#include <csignal>
#include <iostream>

#include "base/log.h"
#include "tests/controlplane/apiserver/test_server.h"

int main(int argc, char** argv) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  fairlead::log::init({"playground", fairlead::log::Level::info, false});
  fairlead::apiserver::test::TestServer server({}, argc > 1 ? argv[1] : "");
  std::cout << "export KUBECONFIG=" << server.kubeconfig() << std::endl;
  int signal = 0;
  sigwait(&set, &signal);
}
