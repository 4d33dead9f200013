# Compiler, linker, cache and sanitizers: everything that is about how, not what.
option(FAIRLEAD_SANITIZE "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(FAIRLEAD_TSAN "Build with ThreadSanitizer" OFF)
option(FAIRLEAD_WERROR "Treat warnings as errors" ON)

find_program(CCACHE ccache)
if(CCACHE)
  # Paths relative to the source folder, so that a second checkout shares the cache.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=time_macros ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")
add_compile_options(-fno-omit-frame-pointer -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
add_compile_definitions(BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED)
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)

# GCC 12 reports the allocator of coroutine frames as mismatched when sanitizers are on.
set(FAIRLEAD_WARNINGS -Wno-mismatched-new-delete -Wall -Wextra -Wshadow=compatible-local -Wnon-virtual-dtor -Woverloaded-virtual -Wno-missing-field-initializers)
if(FAIRLEAD_WERROR)
  list(APPEND FAIRLEAD_WARNINGS -Werror)
endif()
# Sanitizers apply to our own code; generated code is built alike in every preset, so ccache shares it.
if(FAIRLEAD_SANITIZE)
  set(FAIRLEAD_SAN -fsanitize=address,undefined -fno-sanitize-recover=undefined)
elseif(FAIRLEAD_TSAN)
  # ThreadSanitizer does not know fences. Asio's have mutexes beside them.
  set(FAIRLEAD_SAN -fsanitize=thread -Wno-tsan)
  add_compile_definitions(BOOST_ASIO_DISABLE_FENCED_BLOCK)
endif()
