// The one kind of error that libspecc throws inside, and returns as a line of text.
#pragma once

#include <stdexcept>
#include <string>

namespace specc {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace specc
