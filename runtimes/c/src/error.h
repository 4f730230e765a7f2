// The one kind of error that libspecc throws inside, and returns as a line of text.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

namespace specc {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Calls a function whose work depends on a file. An error that does not name the file gets its path. Throws Error or std::bad_alloc.
template <typename Work>
auto Naming(const std::string& path, Work work) {
  std::string reason;
  try {
    return work();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const Error& e) {
    reason = e.what();
  } catch (const std::exception& e) {
    reason = std::string(e.what()) + "; compile the bundle again";
  }
  throw Error(reason.find(path) == std::string::npos ? path + ": " + reason : reason);
}

}  // namespace specc
