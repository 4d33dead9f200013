// Builds OCI images without a registry, a daemon or a shell: a tar archive in the OCI image layout that
// `ctr -n k8s.io images import` takes. One gzip layer holds the given files; the same input gives the same bytes and so
// the same digests (all times are zero).
//
// Sources: OCI image layout, image index, manifest, config and layer specifications (opencontainers/image-spec v1).
// Threads: values in, values out. Errors: invalid_argument for a bad reference or path, internal from libarchive.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace fairlead::demo {

struct ImageFile {
  std::string path;  // "/fairlead-demo"; parents are made as needed
  std::string content;
  unsigned mode = 0644;
  bool directory = false;
};

struct ImageSpec {
  std::string reference;  // "fairlead.local/demo:1", the name it is imported under
  std::string architecture = "amd64";
  std::vector<ImageFile> files;
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::vector<std::string> environment;    // "NAME=value"
  std::vector<std::string> exposed_ports;  // "8080/tcp"
  std::string user;                        // "65532:65532"; empty: root
};

// The whole archive.
Result<std::string> build_image(const ImageSpec& spec);

// The blobs of an image by digest, with index.json and oci-layout: what the archive is made of, for tests.
struct ImageBlobs {
  std::map<std::string, std::string> files;  // path in the archive -> content
  std::string manifest_digest;               // "sha256:..."
};
Result<ImageBlobs> build_blobs(const ImageSpec& spec);

// The architecture of this build in Go's words ("amd64", "arm64").
std::string host_architecture();

}  // namespace fairlead::demo
