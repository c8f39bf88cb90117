// What the bindings of LibTorch lack, as C functions: tensors on memory of others, all tensors and methods of a module, calls
// with named tensors, and who writes what. The declarations of the same are in `ffi.rs`.
//
// Each function returns NULL, or a message that `rz_free` takes back: no exception leaves this file.

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/script.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

using torch::jit::AliasDb;
using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;
namespace prim = c10::prim;

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

using Told = void (*)(void *, const char *name, const char *what);

bool is_module(const c10::TypePtr &type) {
  auto object = type->cast<c10::ClassType>();
  return object && object->is_module();
}

bool is_tensor(const c10::TypePtr &type) {
  if (auto optional = type->cast<c10::OptionalType>()) return is_tensor(optional->getElementType());
  return type->isSubtypeOf(*c10::TensorType::get());
}

// The memory of tensors that are constants of the code, each once.
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

// Lists, dictionaries, tuples and objects. Plain values hold nothing.
bool may_hold_tensors(const c10::TypePtr &type) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NumberType:
    case c10::TypeKind::ComplexType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::NoneType:
    case c10::TypeKind::DeviceObjType:
      return false;
    default:
      // A list of numbers, or an optional one.
      if (type->containedTypes().empty()) return true;
      for (const auto &inner : type->containedTypes()) {
        if (may_hold_tensors(inner)) return true;
      }
      return false;
  }
}

// What methods of a module do to its own tensors, by torch's analysis of aliases. What it does not see are operations that give what
// they were given and do not say so in their schemas.
class Writes {
 public:
  Writes(void *context, Told told) : context_(context), told_(told) {}

  void method(const torch::jit::Method &method) {
    auto graph = method.graph()->copy();
    torch::jit::Inline(*graph);
    name_ = method.name();
    self_ = graph->inputs().at(0);
    own_.clear();
    containers_.clear();
    nodes_.clear();
    written_.clear();
    // What comes from outside is a copy, and no tensor of the module. The analysis would believe that it may be. For it, any new
    // tensor will do, which is there or not.
    for (auto *input : graph->inputs()) {
      if (input == self_ || !is_tensor(input->type())) continue;
      torch::jit::WithInsertPoint at_the_start(graph->block()->nodes().front());
      auto *some = graph->insertConstant(torch::zeros({1}));
      auto *none = graph->insertNode(graph->createNone())->output();
      auto *copy = graph->insertNode(graph->create(c10::aten::clone, {some, none}))->output();
      copy->setType(input->type());
      input->replaceAllUsesWith(copy);
    }
    // Attributes as objects of their own: else all of them may be the same, and a write to one is a write to any.
    AliasDb aliases(graph, /*isFrozen=*/true);
    gather(aliases, graph->block());
    for (auto *tensor : own_) {
      if (!aliases.hasWriters(tensor)) continue;
      // The analysis believes that whatever went through an optional or a list may be anything.
      if (auto *node = writer(tensor)) tell(tensor, std::string("writes into it by ") + node->kind().toQualString());
    }
    for (auto *container : containers_) {
      for (auto *written : written_) {
        if (aliases.mayContainAlias(container, written)) {
          tell(container, "writes into a tensor of it");
        }
      }
    }
    // Statistics are written without a word in the operation's schema.
    for (auto *node : nodes_) statistics(aliases, node);
    // Under another name, another call may write what this one does not.
    for (auto *node : nodes_) kept(aliases, node);
  }

 private:
  void gather(AliasDb &aliases, torch::jit::Block *block) {
    for (auto *node : block->nodes()) {
      nodes_.push_back(node);
      for (auto *output : node->outputs()) note(aliases, output);
      if (node->kind() == prim::CallMethod || node->kind() == prim::CallFunction) {
        told_(context_, "", (name_ + " calls a method of an interface").c_str());
      } else if (node->hasAttribute(c10::attr::Subgraph)) {
        told_(context_, "", (name_ + " runs a part of itself apart, with " + node->kind().toQualString()).c_str());
      } else if (node->kind() == prim::GetAttr && is_module(node->inputs().at(0)->type())) {
        auto type = node->output()->type();
        if (is_tensor(type)) {
          own_.push_back(node->output());
        } else if (!is_module(type) && may_hold_tensors(type)) {
          containers_.push_back(node->output());
        }
      }
      for (auto *inner : node->blocks()) {
        for (auto *input : inner->inputs()) note(aliases, input);
        gather(aliases, inner);
      }
    }
  }

  void note(AliasDb &aliases, Value *value) {
    if (is_tensor(value->type()) && aliases.hasWriters(value)) written_.push_back(value);
  }

  void statistics(AliasDb &aliases, Node *node) {
    auto *schema = node->maybeSchema();
    if (!schema || !schema->argumentIndexWithName("running_mean")) return;
    // Instance norm writes them in any case.
    if (schema->argumentIndexWithName("training")) {
      auto known = torch::jit::constant_as<bool>(node->namedInput("training"));
      if (known && !*known) return;
    }
    for (const char *name : {"running_mean", "running_var"}) {
      auto *running = node->namedInput(name);
      for (auto *tensor : own_) {
        if (aliases.mayAlias(tensor, running)) tell(tensor, std::string("keeps statistics in it, by ") + node->kind().toQualString());
      }
    }
  }

  void kept(AliasDb &aliases, Node *node) {
    bool stores = node->kind() == prim::SetAttr;
    for (auto *container : containers_) {
      stores = stores || (node->kind() != prim::GetAttr && aliases.writesToAlias(node, {container}));
    }
    if (!stores) return;
    for (size_t at = 1; at < node->inputs().size(); ++at) {
      auto *value = node->inputs().at(at);
      for (auto *tensor : own_) {
        if (aliases.mayContainAlias(value, tensor)) tell(tensor, "keeps it under another name");
      }
      for (auto *container : containers_) {
        if (value != container && aliases.mayContainAlias(value, container)) {
          tell(container, "keeps a tensor of it under another name");
        }
      }
    }
  }

  // The path of an attribute from the module, as its parameters are named. Unknown is the empty path.
  std::string attribute(Node *node) {
    auto owner = path(node->inputs().at(0));
    if (!owner) return "";
    auto name = node->s(c10::attr::name);
    return owner->empty() ? name : *owner + "." + name;
  }

  std::optional<std::string> path(Value *value) {
    if (value == self_) return "";
    if (value->node()->kind() != prim::GetAttr) return std::nullopt;
    auto found = attribute(value->node());
    if (found.empty()) return std::nullopt;
    return found;
  }

  // The operation that writes to a tensor, by the ways that a tensor can take: views, branches, loops, containers.
  Node *writer(Value *tensor) {
    for (auto *node : nodes_) {
      auto *schema = node->maybeSchema();
      if (!schema) continue;
      for (size_t at = 0; at < node->inputs().size() && at < schema->arguments().size(); ++at) {
        auto *alias = schema->arguments()[at].alias_info();
        if (!alias || !alias->isWrite()) continue;
        std::set<Value *> seen;
        if (comes_from(node->inputs()[at], tensor, seen)) return node;
      }
    }
    return nullptr;
  }

  // Whether a value may be a tensor, or hold it, as far as it can be followed back. Attributes of one name are one tensor.
  bool comes_from(Value *value, Value *tensor, std::set<Value *> &seen) {
    if (!is_tensor(value->type()) && !is_module(value->type()) && !may_hold_tensors(value->type())) return false;
    if (!seen.insert(value).second) return false;
    auto *node = value->node();
    auto any = [&](at::ArrayRef<Value *> values) {
      for (auto *each : values) {
        if (comes_from(each, tensor, seen)) return true;
      }
      return false;
    };
    // What was put into a container later.
    for (const auto &use : value->uses()) {
      if (is_tensor(value->type()) || use.offset != 0 || !writes_first(use.user)) continue;
      if (any(use.user->inputs().slice(1))) return true;
    }
    if (value == tensor) return true;
    if (node->kind() == prim::GetAttr) {
      auto path = attribute(node);
      return path.empty() || path == attribute(tensor->node());
    }
    if (node->kind() == prim::Param) {
      auto *owner = node->owningBlock()->owningNode();
      // An input of the method is a copy; one of a loop is what went in, or what the round before has given.
      if (!owner) return false;
      return any(owner->inputs()) || any(node->owningBlock()->outputs());
    }
    if (!node->blocks().empty()) {
      for (auto *block : node->blocks()) {
        if (any(block->outputs())) return true;
      }
      return any(node->inputs());
    }
    if (auto *schema = node->maybeSchema()) {
      for (size_t at = 0; at < node->outputs().size() && at < schema->returns().size(); ++at) {
        if (node->outputs()[at] != value) continue;
        auto *alias = schema->returns()[at].alias_info();
        // A new tensor, by the signature. What holds tensors has them from somewhere.
        if (!alias && is_tensor(value->type())) return false;
      }
    }
    return any(node->inputs());
  }

  static bool writes_first(Node *node) {
    auto *schema = node->maybeSchema();
    if (!schema || schema->arguments().empty()) return false;
    auto *alias = schema->arguments()[0].alias_info();
    return alias && alias->isWrite();
  }

  void tell(Value *tensor, const std::string &what) {
    told_(context_, attribute(tensor->node()).c_str(), (name_ + " " + what).c_str());
  }

  void *context_;
  Told told_;
  std::string name_;
  Value *self_ = nullptr;
  // Attributes of the module and of modules in it: tensors, and what may hold some.
  std::vector<Value *> own_, containers_;
  std::vector<Value *> written_;
  std::vector<Node *> nodes_;
};

// All tensors that a module holds: as parameters, as buffers, and in other attributes.
class Held {
 public:
  enum Role { PARAMETER, BUFFER, ATTRIBUTE };
  using Tell = std::function<void(const std::string &path, Role role, torch::Tensor tensor)>;

  explicit Held(Tell tell) : tell_(std::move(tell)) {}

  void value(const c10::IValue &found, const std::string &path, Role role) {
    if (found.isTensor()) {
      if (found.toTensor().defined()) tell_(path, role, found.toTensor());
    } else if (found.isList()) {
      auto list = found.toList();
      for (size_t at = 0; at < list.size(); ++at) value(list.get(at), below(path, std::to_string(at)), ATTRIBUTE);
    } else if (found.isTuple()) {
      const auto &elements = found.toTupleRef().elements();
      for (size_t at = 0; at < elements.size(); ++at) value(elements[at], below(path, std::to_string(at)), ATTRIBUTE);
    } else if (found.isGenericDict()) {
      for (const auto &entry : found.toGenericDict()) {
        std::ostringstream key;
        key << entry.key();
        value(entry.value(), below(path, key.str()), ATTRIBUTE);
      }
    } else if (found.isObject()) {
      object(found.toObject(), path);
    }
  }

  void object(const c10::intrusive_ptr<c10::ivalue::Object> &object, const std::string &path) {
    if (!seen_.insert(object.get()).second) return;
    auto type = object->type();
    for (size_t at = 0; at < type->numAttributes(); ++at) {
      // Only modules have parameters; other objects, packed weights for one, just have something.
      auto role = !type->is_module()      ? ATTRIBUTE
                  : type->is_parameter(at) ? PARAMETER
                  : type->is_buffer(at)    ? BUFFER
                                           : ATTRIBUTE;
      value(object->getSlot(at), below(path, type->getAttributeName(at)), role);
    }
  }

 private:
  static std::string below(const std::string &path, const std::string &name) {
    return path.empty() ? name : path + "." + name;
  }

  Tell tell_;
  // An object may be held twice, by itself even.
  std::set<const void *> seen_;
};

// The arguments of a call, out of named tensors: a list has `name.0`, `name.1`, a tuple too, a dictionary `name.key`.
class Arguments {
 public:
  explicit Arguments(std::map<std::string, torch::Tensor> tensors) : tensors_(std::move(tensors)) {}

  bool any(const std::string &name) const {
    return tensors_.count(name) != 0 || below(name).first != below(name).second;
  }

  c10::IValue value(const c10::TypePtr &type, const std::string &name) {
    switch (type->kind()) {
      case c10::TypeKind::TensorType:
      case c10::TypeKind::AnyType:
        return take(name);
      case c10::TypeKind::OptionalType:
        return any(name) ? value(type->expectRef<c10::OptionalType>().getElementType(), name) : c10::IValue();
      case c10::TypeKind::IntType:
        return one(name).item<int64_t>();
      case c10::TypeKind::FloatType:
        return one(name).item<double>();
      case c10::TypeKind::BoolType:
        return one(name).item<bool>();
      case c10::TypeKind::NumberType:
        return one(name).item();
      case c10::TypeKind::ListType: {
        auto element = type->expectRef<c10::ListType>().getElementType();
        c10::impl::GenericList list(element);
        for (size_t at = 0; any(name + "." + std::to_string(at)); ++at) {
          list.push_back(value(element, name + "." + std::to_string(at)));
        }
        return list;
      }
      case c10::TypeKind::TupleType: {
        std::vector<c10::IValue> elements;
        for (const auto &element : type->expectRef<c10::TupleType>().elements()) {
          elements.push_back(value(element, name + "." + std::to_string(elements.size())));
        }
        return c10::ivalue::Tuple::create(std::move(elements));
      }
      case c10::TypeKind::DictType: {
        const auto &dict = type->expectRef<c10::DictType>();
        TORCH_CHECK(dict.getKeyType()->kind() == c10::TypeKind::StringType, "argument `", name, "` is a ",
                    type->annotation_str(), ", and only dictionaries of names can be given");
        c10::impl::GenericDict made(dict.getKeyType(), dict.getValueType());
        std::vector<std::string> names;
        auto [first, last] = below(name);
        for (auto entry = first; entry != last; ++entry) names.push_back(entry->first);
        for (const auto &entry : names) made.insert(entry.substr(name.size() + 1), value(dict.getValueType(), entry));
        return made;
      }
      default:
        TORCH_CHECK(false, "argument `", name, "` is a ", type->annotation_str(), ", which tensors cannot make");
    }
  }

  // What nobody has asked for.
  std::optional<std::string> left() const {
    for (const auto &entry : tensors_) {
      if (!taken_.count(entry.first)) return entry.first;
    }
    return std::nullopt;
  }

 private:
  using Tensors = std::map<std::string, torch::Tensor>;

  std::pair<Tensors::const_iterator, Tensors::const_iterator> below(const std::string &name) const {
    // The character behind the dot.
    return {tensors_.lower_bound(name + "."), tensors_.lower_bound(name + "/")};
  }

  torch::Tensor take(const std::string &name) {
    auto found = tensors_.find(name);
    TORCH_CHECK(found != tensors_.end(), "`", name, "` is missing");
    taken_.insert(name);
    return found->second;
  }

  torch::Tensor one(const std::string &name) {
    auto tensor = take(name);
    TORCH_CHECK(tensor.numel() == 1, "`", name, "` is a number, and a tensor of ", tensor.numel(), " elements was given");
    return tensor;
  }

  Tensors tensors_;
  std::set<std::string> taken_;
};

// The tensors of an answer, with the same names: one alone is `output`, numbers are tensors of one element, and None is nothing.
class Answer {
 public:
  using Tell = void (*)(void *, const char *name, torch::Tensor *tensor);

  Answer(void *context, Tell tell) : context_(context), tell_(tell) {}

  void value(const c10::IValue &found, const std::string &name) {
    if (found.isTensor()) {
      tensor(found.toTensor(), name);
    } else if (found.isInt() || found.isBool() || found.isDouble()) {
      tensor(found.isInt()    ? torch::tensor({found.toInt()})
             : found.isBool() ? torch::tensor({found.toBool()})
                              : torch::tensor({found.toDouble()}, torch::kDouble),
             name);
    } else if (found.isList()) {
      auto list = found.toList();
      for (size_t at = 0; at < list.size(); ++at) value(list.get(at), name + "." + std::to_string(at));
    } else if (found.isTuple()) {
      const auto &elements = found.toTupleRef().elements();
      auto schema = found.toTupleRef().type<c10::TupleType>()->schema();
      for (size_t at = 0; at < elements.size(); ++at) {
        value(elements[at], schema ? schema->arguments()[at].name() : name + "." + std::to_string(at));
      }
    } else if (found.isGenericDict()) {
      for (const auto &entry : found.toGenericDict()) {
        std::ostringstream key;
        key << entry.key().toStringRef();
        value(entry.value(), name == "output" ? key.str() : name + "." + key.str());
      }
    } else {
      TORCH_CHECK(found.isNone(), "`", name, "` is a ", found.type()->annotation_str(), ", and tensors can be given back");
    }
  }

 private:
  void tensor(const torch::Tensor &found, const std::string &name) {
    if (!found.defined()) return;
    auto plain = found.is_quantized() ? found.dequantize() : found.to_dense();
    tell_(context_, name.c_str(), new torch::Tensor(plain.resolve_conj().resolve_neg().to(at::kCPU).contiguous()));
  }

  void *context_;
  Tell tell_;
};

}  // namespace

extern "C" {

void rz_free(char *message) { free(message); }

// A tensor on memory that `owner` keeps alive. `release` is called once, whatever happens.
char *rz_blob(const void *data, const int64_t *dims, size_t rank, int kind, void *owner, void (*release)(void *),
              torch::Tensor **tensor) {
  return guarded([&] {
    std::shared_ptr<void> kept(owner, release);
    auto options = at::TensorOptions().dtype(at::ScalarType(kind)).device(at::kCPU);
    auto made = torch::from_blob(
        const_cast<void *>(data), at::IntArrayRef(dims, rank), [kept](void *) mutable { kept.reset(); }, options);
    *tensor = new torch::Tensor(std::move(made));
  });
}

// What a tensor is: its type of elements, or -1 if it is none of plain numbers in host memory; its shape; the memory that it is
// a view of; and whether its elements lie in the order of C, and where.
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

// The same elements in the order of C.
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

char *rz_save(const Module *module, void *context, void (*told)(void *, const char *bytes, size_t len)) {
  return guarded([&] {
    std::ostringstream stream;
    module->save(stream);
    auto bytes = stream.str();
    told(context, bytes.data(), bytes.size());
  });
}

void rz_module_free(Module *module) { delete module; }

// Each tensor that is held, with its role: 0 for a parameter, 1 for a buffer, 2 for others. The tensors are the receiver's; they are
// others on the same memory, which stay as they are when the module gets new ones.
char *rz_tensors(const Module *module, void *context,
                 void (*told)(void *, const char *name, int role, torch::Tensor *tensor)) {
  return guarded([&] {
    Held([&](const std::string &path, Held::Role role, torch::Tensor tensor) {
      told(context, path.c_str(), role, new torch::Tensor(tensor.detach()));
    }).object(module->_ivalue(), "");
  });
}

// Each argument of each method but `self`: the method, its name, its type. A method without any tells empty ones.
char *rz_methods(const Module *module, void *context,
                 void (*told)(void *, const char *method, const char *name, const char *type, bool optional)) {
  return guarded([&] {
    for (const auto &method : module->get_methods()) {
      const auto &schema = method.function().getSchema();
      told(context, method.name().c_str(), "", schema.returns().empty() ? "None" : schema.returns()[0].type()->annotation_str().c_str(), false);
      for (size_t at = 1; at < schema.arguments().size(); ++at) {
        const auto &argument = schema.arguments()[at];
        told(context, method.name().c_str(), argument.name().c_str(), argument.type()->annotation_str().c_str(),
             argument.default_value().has_value());
      }
    }
  });
}

// The bytes of tensors that are constants of the code.
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

// Who writes what: the path of a tensor and what is done to it, or an empty path and why nobody knows.
char *rz_writes(const Module *module, void *context, Told told) {
  return guarded([&] {
    Writes writes(context, told);
    for (const auto &method : module->get_methods()) writes.method(method);
  });
}

// Calls a method with named tensors, on a device: `cuda` is its number, or -1 for the CPU. Tensors of the answer are the receiver's.
char *rz_call(const Module *module, const char *method, const char *const *names, torch::Tensor *const *tensors, size_t count,
              int cuda, void *context, Answer::Tell told) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::map<std::string, torch::Tensor> given;
    for (size_t at = 0; at < count; ++at) {
      // A copy: a method may write into what it is given.
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
    Answer(context, told).value(called(std::move(stack), named), "output");
  });
}

// Puts tensors in the place of those of the same paths. `find` gives one that stays its own, or NULL.
char *rz_replace(const Module *module, void *context, torch::Tensor *(*find)(void *, const char *name)) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    Held([&](const std::string &path, Held::Role, torch::Tensor tensor) {
      if (auto *other = find(context, path.c_str())) tensor.set_data(*other);
    }).object(module->_ivalue(), "");
  });
}

// Moves what the module holds to a GPU.
char *rz_upload(Module *module, int cuda) {
  return guarded([&] { module->to(device(cuda)); });
}

// An empty tensor of the same type of elements.
char *rz_emptied(const torch::Tensor *tensor, torch::Tensor **made) {
  return guarded([&] { *made = new torch::Tensor(torch::empty({0}, tensor->options().requires_grad(false))); });
}

void rz_tensor_free(torch::Tensor *tensor) { delete tensor; }

}
