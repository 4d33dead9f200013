// ApiHandler: the way of every request: audit id, request info, authentication, limits, authorization, routing, and the
// answer's headers; errors become a Status in the client's format. One place, so that no path can miss a step.
#pragma once

#include "base/http/server.h"
#include "controlplane/apiserver/core.h"

namespace fairlead::apiserver {

http::Handler make_api_handler(std::shared_ptr<Core> core);

// For errors that the HTTP server answers by itself.
http::Response render_status(unsigned status, std::string message);

}  // namespace fairlead::apiserver
