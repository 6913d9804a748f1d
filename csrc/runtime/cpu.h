// Which instruction sets this binary holds, which this CPU runs, and which is in use.
#pragma once
#include <string>
#include <vector>

#include "table.h"

namespace hotrow {

std::vector<std::string> built_isas();      // worst first
std::vector<std::string> supported_isas();  // those of them that this CPU runs
void use_isa(const std::string& name);      // std::invalid_argument if not supported
const Kernels& kernels();                   // of the ISA in use: the best supported one unless use_isa said otherwise

}  // namespace hotrow
