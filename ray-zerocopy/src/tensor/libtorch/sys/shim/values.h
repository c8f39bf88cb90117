// Conversion between named tensors and the values of a module: its attributes, arguments and
// results.
//
// Part of `shim.cpp`.

#pragma once

#include <torch/script.h>

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

// Lists all tensors of a module: parameters, buffers, and other attributes.
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
      // Only modules have parameters. Other objects, such as packed weights, only have attributes.
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
  // An object may be referenced several times, even by itself.
  std::set<const void *> seen_;
};

// Builds the arguments of a call from named tensors: `name.0`, `name.1` for a list or a tuple, and
// `name.key` for a dictionary.
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

  // Name of a tensor that is not part of any argument.
  std::optional<std::string> left() const {
    for (const auto &entry : tensors_) {
      if (!taken_.count(entry.first)) return entry.first;
    }
    return std::nullopt;
  }

 private:
  using Tensors = std::map<std::string, torch::Tensor>;

  std::pair<Tensors::const_iterator, Tensors::const_iterator> below(const std::string &name) const {
    // `/` is the character after `.`.
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

// Lists the tensors of a result with their names: a single one is `output`. Numbers become tensors
// of one element, and None is omitted.
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
