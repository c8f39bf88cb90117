// C functions for what burn's LibTorch bindings lack: tensors over borrowed memory, the tensors and
// methods of a module, calls with named tensors, and an analysis of writes. `ffi.rs` declares the
// same functions.
//
// Each function returns NULL, or a message that must be freed with `rz_free`. No exception leaves
// this file.

#include "values.h"
#include "writes.h"

#include <torch/version.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

using torch::jit::Module;

at::Device device(int cuda) { return cuda < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, c10::DeviceIndex(cuda)); }

template <typename F>
char *guarded(F &&what) {
  try {
    what();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of an unknown type");
  }
}

// Collects the storages of tensors that are constants of the code, each once.
void constants(torch::jit::Block *block, std::map<const void *, size_t> &found) {
  auto add = [&](const torch::Tensor &tensor) {
    if (tensor.defined() && tensor.has_storage()) found[tensor.storage().data()] = tensor.storage().nbytes();
  };
  for (auto *node : block->nodes()) {
    if (node->kind() == prim::Constant && node->hasAttribute(c10::attr::value)) {
      if (node->kindOf(c10::attr::value) == torch::jit::AttributeKind::t) add(node->t(c10::attr::value));
      if (node->kindOf(c10::attr::value) == torch::jit::AttributeKind::ts) {
        for (const auto &tensor : node->ts(c10::attr::value)) add(tensor);
      }
    }
    for (auto *inner : node->blocks()) constants(inner, found);
  }
}

}  // namespace

extern "C" {

void rz_free(char *message) { free(message); }

// The LibTorch release that this file was compiled against.
const char *rz_version() { return TORCH_VERSION; }

// Creates a tensor over memory that `owner` keeps alive: that of GPU number `cuda`, or host memory if
// it is -1. `release` is called exactly once, even in the case of an error.
char *rz_blob(const void *data, int cuda, const int64_t *dims, size_t rank, int kind, void *owner,
              void (*release)(void *), torch::Tensor **tensor) {
  return guarded([&] {
    std::shared_ptr<void> kept(owner, release);
    auto options = at::TensorOptions().dtype(at::ScalarType(kind)).device(device(cuda));
    auto made = torch::from_blob(
        const_cast<void *>(data), at::IntArrayRef(dims, rank), [kept](void *) mutable { kept.reset(); }, options);
    *tensor = new torch::Tensor(std::move(made));
  });
}

// Describes a tensor: its element type, or -1 if its elements are not plain numbers in host memory;
// its shape; the storage that it is a view of; and the address of its elements if they are in
// row-major order.
struct Description {
  int kind;
  size_t rank;
  const int64_t *dims;
  const void *storage;
  const void *data;
  size_t len;
};

char *rz_describe(const torch::Tensor *tensor, Description *made) {
  return guarded([&] {
    auto plain = tensor->layout() == at::kStrided && tensor->device().is_cpu() && !tensor->is_quantized() &&
                 !tensor->is_complex() && !tensor->is_neg();
    auto ordered = plain && tensor->is_contiguous();
    *made = Description{plain ? int(tensor->scalar_type()) : -1,
                        plain ? size_t(tensor->dim()) : 0,
                        plain ? tensor->sizes().data() : nullptr,
                        tensor->has_storage() ? tensor->storage().data() : nullptr,
                        ordered ? tensor->const_data_ptr() : nullptr,
                        tensor->is_sparse() ? 0 : tensor->nbytes()};
  });
}

// Returns a tensor with the same elements in row-major order.
char *rz_ordered(const torch::Tensor *tensor, torch::Tensor **made) {
  return guarded([&] { *made = new torch::Tensor(tensor->contiguous()); });
}

char *rz_load(const char *bytes, size_t len, Module **module) {
  return guarded([&] {
    struct View : std::streambuf {
      View(const char *bytes, size_t len) {
        auto *start = const_cast<char *>(bytes);
        setg(start, start, start + len);
      }
      pos_type seekoff(off_type off, std::ios_base::seekdir way, std::ios_base::openmode) override {
        auto *from = way == std::ios_base::beg ? eback() : way == std::ios_base::cur ? gptr() : egptr();
        if (off < eback() - from || off > egptr() - from) return pos_type(off_type(-1));
        setg(eback(), from + off, egptr());
        return gptr() - eback();
      }
      pos_type seekpos(pos_type pos, std::ios_base::openmode mode) override {
        return seekoff(off_type(pos), std::ios_base::beg, mode);
      }
    } view(bytes, len);
    std::istream stream(&view);
    *module = new Module(torch::jit::load(stream, at::kCPU));
  });
}

char *rz_open(const char *path, Module **module) {
  return guarded([&] { *module = new Module(torch::jit::load(path, at::kCPU)); });
}

char *rz_save(const Module *module, void *context, void (*callback)(void *, const char *bytes, size_t len)) {
  return guarded([&] {
    std::ostringstream stream;
    module->save(stream);
    auto bytes = stream.str();
    callback(context, bytes.data(), bytes.size());
  });
}

void rz_module_free(Module *module) { delete module; }

// Lists the tensors of a module with their roles: 0 for a parameter, 1 for a buffer, 2 for others.
// The receiver owns the tensors. They are distinct objects over the same memory, and do not change
// when the module's tensors are replaced.
char *rz_tensors(const Module *module, void *context,
                 void (*callback)(void *, const char *name, int role, torch::Tensor *tensor)) {
  return guarded([&] {
    Held([&](const std::string &path, Held::Role role, torch::Tensor tensor) {
      callback(context, path.c_str(), role, new torch::Tensor(tensor.detach()));
    }).object(module->_ivalue(), "");
  });
}

// Lists the methods. For each method, an entry with an empty name and the return type is followed
// by its arguments without `self`: the method, the argument's name, and its type.
char *rz_methods(const Module *module, void *context,
                 void (*callback)(void *, const char *method, const char *name, const char *type, bool optional)) {
  return guarded([&] {
    for (const auto &method : module->get_methods()) {
      const auto &schema = method.function().getSchema();
      callback(context, method.name().c_str(), "", schema.returns().empty() ? "None" : schema.returns()[0].type()->annotation_str().c_str(), false);
      for (size_t at = 1; at < schema.arguments().size(); ++at) {
        const auto &argument = schema.arguments()[at];
        callback(context, method.name().c_str(), argument.name().c_str(), argument.type()->annotation_str().c_str(),
             argument.default_value().has_value());
      }
    }
  });
}

// Total size of the tensors that are constants of the code.
char *rz_constants(const Module *module, size_t *len) {
  return guarded([&] {
    std::map<const void *, size_t> found;
    for (const auto &method : module->get_methods()) {
      auto graph = method.graph()->copy();
      torch::jit::Inline(*graph);
      constants(graph->block(), found);
    }
    *len = 0;
    for (const auto &constant : found) *len += constant.second;
  });
}

// Lists the writes to tensors of the module: the path of the tensor and a description, or an empty
// path and the reason why it is unknown.
char *rz_writes(const Module *module, void *context, Told callback) {
  return guarded([&] {
    Writes writes(context, callback);
    for (const auto &method : module->get_methods()) writes.method(method);
  });
}

// Calls a method with named tensors on GPU number `cuda`, or on the CPU if it is -1. The receiver
// owns the tensors of the result.
char *rz_call(const Module *module, const char *method, const char *const *names, torch::Tensor *const *tensors, size_t count,
              int cuda, void *context, Answer::Tell callback) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::map<std::string, torch::Tensor> given;
    for (size_t at = 0; at < count; ++at) {
      // Copied, since a method may write to its arguments.
      given.emplace(names[at], tensors[at]->to(tensors[at]->options().device(device(cuda)), false, true));
    }
    Arguments arguments(std::move(given));
    auto called = module->get_method(method);
    std::vector<c10::IValue> stack;
    torch::jit::Kwargs named;
    const auto &schema = called.function().getSchema();
    for (size_t at = 1; at < schema.arguments().size(); ++at) {
      const auto &argument = schema.arguments()[at];
      if (argument.default_value() && !arguments.any(argument.name())) continue;
      named[argument.name()] = arguments.value(argument.type(), argument.name());
    }
    if (auto left = arguments.left()) TORCH_CHECK(false, "`", *left, "` has no place in the arguments of `", method, "`");
    Answer(context, callback).value(called(std::move(stack), named), "output");
  });
}

// Replaces tensors by path. `find` returns a tensor that it continues to own, or NULL.
char *rz_replace(const Module *module, void *context, torch::Tensor *(*find)(void *, const char *name)) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    Held([&](const std::string &path, Held::Role, torch::Tensor tensor) {
      if (auto *other = find(context, path.c_str())) tensor.set_data(*other);
    }).object(module->_ivalue(), "");
  });
}

// Moves the module's tensors to a GPU.
char *rz_upload(Module *module, int cuda) {
  return guarded([&] { module->to(device(cuda)); });
}

// Creates a tensor of the same element type without elements.
char *rz_emptied(const torch::Tensor *tensor, torch::Tensor **made) {
  return guarded([&] { *made = new torch::Tensor(torch::empty({0}, tensor->options().requires_grad(false))); });
}

void rz_tensor_free(torch::Tensor *tensor) { delete tensor; }

}
