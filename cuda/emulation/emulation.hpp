// CUDA's execution model on the CPU, as much of it as the kernels of ../kernels use. Each CUDA thread of a block is a fiber; fibers switch
// at barriers and warp operations only; the order in which they run is a parameter, so that a result that depends on it shows.
// README.md says what is covered. Included by prelude.cuh.
#pragma once

// Before CUDA's words, which are macros, and before kernels, which are compiled in a namespace each.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <math.h> // sqrtf, fmaf, isnan .. without std::, as CUDA has them

#include "fiber.hpp"
#include "block.hpp"
#include "registry.hpp"
// What kernels say: CUDA's own words and the prelude's.
#include "words.hpp"
#include "warp.hpp"
#include "async_copy.hpp"
#include "fragments.hpp"
#include "intrinsics.hpp"
