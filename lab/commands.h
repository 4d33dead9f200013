// The lab's commands: `fairlead up`, `fairlead down`, `fairlead status`, and `fairlead lab-images`, which a node runs to give
// its containerd the images that were built with the project.
#pragma once

namespace fairlead::lab {

int run_up(int argc, char** argv);
int run_down(int argc, char** argv);
int run_status(int argc, char** argv);
int run_lab_images(int argc, char** argv);

}  // namespace fairlead::lab
