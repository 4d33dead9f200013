#include "tests/e2e/lab.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::AddGlobalTestEnvironment(new fairlead::e2e::LabEnvironment);
  return RUN_ALL_TESTS();
}
