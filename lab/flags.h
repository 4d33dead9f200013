// Command-line flags shared by the lab's commands. Address blocks are parsed strictly after CLI11 has read the text.
#pragma once

#include <CLI/CLI.hpp>
#include <deque>
#include <string>

#include "lab/topology.h"

namespace fairlead::lab {

struct Flags {
  struct Block {
    std::string flag;
    std::string text;
    Prefix* target = nullptr;
  };
  std::deque<Block> blocks;  // stable addresses for CLI11
  Result<> apply() {
    for (auto& b : blocks) {
      FL_TRY_CTX(*b.target, Prefix::parse(b.text), "{}", b.flag);
    }
    return {};
  }
};

inline void add_block(CLI::App& app, Flags& flags, const std::string& name, Prefix& target, const std::string& help) {
  auto& b = flags.blocks.emplace_back(Flags::Block{name, target.to_string(), &target});
  app.add_option(name, b.text, help)->capture_default_str();
}

inline void add_state_dir(CLI::App& app, Options& options) {
  app.add_option("--state-dir", options.state_dir, "Folder that holds everything of the lab")->capture_default_str();
}

}  // namespace fairlead::lab
