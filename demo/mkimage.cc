// fairlead-mkimage: writes one image archive. Used by the build for the demo and pause images.
//   fairlead-mkimage --reference fairlead.local/demo:1 --file build/fairlead-demo=/fairlead-demo:0755 --out demo-1.tar ...
#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/files.h"
#include "demo/image.h"

namespace fairlead::demo {
namespace {

// "local=/path/in/image[:octal mode]"
Result<ImageFile> read_image_file(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals + 1 >= text.size())
    return fail(ErrorCode::invalid_argument, "--file: \"{}\" is not LOCAL=/PATH[:MODE]", text);
  ImageFile file;
  file.path = text.substr(equals + 1);
  if (const auto colon = file.path.rfind(':'); colon != std::string::npos) {
    char* end = nullptr;
    file.mode = static_cast<unsigned>(std::strtoul(file.path.c_str() + colon + 1, &end, 8));
    if (*end != '\0' || file.mode > 07777)
      return fail(ErrorCode::invalid_argument, "--file: \"{}\": the mode is not octal", text);
    file.path.resize(colon);
  }
  FL_TRY(file.content, read_file(text.substr(0, equals)));
  return file;
}

std::vector<ImageFile> account_files() {
  return {{"/etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"},
          {"/etc/group", "root:x:0:\nnonroot:x:65532:\n"},
          {"/tmp", "", 01777, true}};
}

Result<> run(ImageSpec spec, const std::vector<std::string>& files, bool accounts, const std::string& out) {
  if (accounts) spec.files = account_files();
  for (const std::string& text : files) {
    FL_TRY(ImageFile file, read_image_file(text));
    spec.files.push_back(std::move(file));
  }
  FL_TRY(const std::string archive, build_image(spec));
  return write_file_atomic(out, archive);
}

}  // namespace
}  // namespace fairlead::demo

int main(int argc, char** argv) {
  fairlead::demo::ImageSpec spec;
  spec.architecture = fairlead::demo::host_architecture();
  std::vector<std::string> files;
  std::string out;
  bool accounts = false;
  CLI::App app{"Builds an OCI image archive from files, for `ctr -n k8s.io images import`.", "fairlead-mkimage"};
  app.add_option("--reference", spec.reference, "name and tag, such as fairlead.local/demo:1")->required();
  app.add_option("--file", files, "LOCAL=/PATH[:MODE], may be repeated")->required();
  app.add_option("--out", out, "the archive to write")->required();
  app.add_option("--entrypoint", spec.entrypoint, "word of the entry point, may be repeated");
  app.add_option("--cmd", spec.command, "word of the default arguments, may be repeated");
  app.add_option("--env", spec.environment, "NAME=value, may be repeated");
  app.add_option("--port", spec.exposed_ports, "exposed port such as 8080/tcp, may be repeated");
  app.add_option("--user", spec.user, "uid:gid the program runs as");
  app.add_flag("--accounts", accounts, "add /etc/passwd, /etc/group and /tmp");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (auto r = fairlead::demo::run(std::move(spec), files, accounts, out); !r) {
    std::fprintf(stderr, "fairlead-mkimage: %s\n", r.error().message.c_str());
    return 1;
  }
  return 0;
}
